"""Kinds of files that are met now and then: each module reads the header and the numbers of one kind."""
