"""`hsl export`: a model becomes an artefact that predicts without the suite."""
