"""What is said and shown of a study: lines in the terminal, tables, the page."""
