"""The page of an analysis."""

from hsl.reports.analysis.analysis_page import analysis_page


def test_a_page_without_masks_and_errors_says_so() -> None:
    run = {"label": "a|b", "encoder": "mit_b0", "run": "outputs/a", "num_wrong": 0, "error_rate": 0.0,
           "heat_maps": "heat.png", "attention": None, "stages": {"4": {
               "num_channels": 8, "mean": 0.125, "std": None, "num_dead": 2, "dead_share": 0.25}}}  # fmt: skip
    text = analysis_page({
        "data": "leaves", "part": "val", "fold": 0, "num_pictures": 3, "classes": {"rust": 3}, "notes": ["no masks"],
        "runs": [run], "files": {"overview": "o.png", "stages_plot": "s.png"}, "definitions": {"wrong": "is wrong"},
        "errors": {"wrong_in_all": [], "wrong_in_one": {"a|b": []}, "overlap": [[None]]},
        "feature_similarity": [[0.25]],
    })  # fmt: skip
    assert "Note: no masks" in text
    assert "Left out: no picture" in text
    assert "| a\\|b | 4 | 8 | 0.125 | – | 2 | 25.0 % |" in text
    assert "Wrong in every run: none." in text
    assert "| a\\|b | – |" in text
    assert "| a\\|b | 0.25 |" in text
