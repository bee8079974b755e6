"""Reports: tables, plots, pictures and the page, made from run folders alone."""
