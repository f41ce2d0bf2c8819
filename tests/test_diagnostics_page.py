import re
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot as plt

PAGE = Path(__file__).parents[1] / "docs" / "diagnostics.md"


@pytest.mark.slow
def test_the_page_runs_and_bears_out_what_it_says(capsys):
    names: dict = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)
        plt.close("all")
    printed = capsys.readouterr().out
    passed, failed = (float(re.search(rf"^{word} (.*)$", printed, re.MULTILINE)[1]) for word in ("passes", "fails"))
    assert passed > 0.05
    assert failed < 1e-6
    assert min(names[name].p_value for name in ("ranks", "regions", "balls", "local")) > 0.01
    assert (names["own"].mean < names["climatology"].mean).all()
    assert names["report"].temperature_after == pytest.approx(1, abs=0.1)
    overconfident, repaired = map(float, re.search(r"^Recalibration.*\n(.*)\n(.*)$", printed, re.MULTILINE).groups())
    assert overconfident < 1e-6
    assert repaired > 0.05
