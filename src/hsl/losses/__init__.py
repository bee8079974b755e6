"""Loss terms for dense heads, the class weights and the module that gathers the terms into objectives."""
