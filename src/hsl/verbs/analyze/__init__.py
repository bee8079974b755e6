"""`hsl analyze`: where trained classifiers look, what their stages give, which images they get wrong."""
