"""Many runs, one verdict: a study trains arms under equal conditions and reports what can be told apart."""
