"""Ask a trained model questions it has not seen, score the answers, and say what could be had without looking."""
