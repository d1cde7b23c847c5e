"""A trained model in use: a conversation that keeps what it has seen and read, and the terminal around it."""
