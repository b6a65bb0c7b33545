# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The tables of the benchmarks of seeds, warm starts and bands, from results
that are made up.
"""

import numpy as np

from benchmarks import bands, seeds, warm_start


def test_table_of_seeds() -> None:
    # Three seeds and the mean image; two faint stars and a bright one.
    flux = np.array([[0.9, 0.8, 1.0], [1.0, 1.0, 1.0], [1.1, 1.2, 1.0], [1.0, 1.0, 1.0]])
    result = seeds.SeedResult(
        flux=flux,
        snr=np.array([10.0, 12.5, 100.0]),
        psnr=np.array([20.0, 21.0, 22.0, 23.0]),
        loss=np.array([0.5, 0.5, 0.5, 0.4]),
        steps=np.array([100, 200, 300]),
        seconds=np.array([1.0, 2.0, 3.0]),
        spread=0.25,
    )
    lines = seeds.format_table({("default", 301): result, ("paper", 301): result}).splitlines()
    table = {line[:70].split(": ")[0]: line for line in lines}
    assert lines[0].split() == ["default", "paper"]
    assert "21.00 +- 1.00, 23.00" in table["PSNR, dB"]
    assert "0.5000 +- 0.0000, 0.4000" in table["loss"]
    # Scatters of 0.1 and 0.2 over the seeds; noise of 1/10 and 1/12.5.
    assert "+0.0% +- 15.0%, 20.0%; +0.0%; 9.0%; 2" in table["flux, S/N 10 to 20"]
    assert "+0.0% +- 0.0%, 0.0%; +0.0%; 1.0%; 1" in table["flux, S/N over 50"]
    assert "nan" in table["flux, S/N 5 to 10"]
    assert "200, 2" in lines[-1]
    assert any(line.startswith("scatter of bright pixels") and "25.0%" in line for line in lines)


def test_table_of_warm_starts() -> None:
    def start(*loss: float) -> warm_start.Start:
        return warm_start.Start(
            steps=np.array([0, 100, 200, 300]), loss=np.array(loss), seconds=0.1, taken=1.0, dark=2.0
        )

    cold = start(1.9, 0.6, 0.5005, 0.5)
    results = {
        seed: {case: [cold, warm] for case in warm_start.CASES}
        for seed, warm in (
            (1, start(0.6, 0.5, 0.5, 0.49)),
            (2, start(0.7, 0.55, 0.5, 0.5)),
            (3, start(0.8, 0.6, 0.6, 0.6)),
        )
    }
    lines = warm_start.format_table(results, [0.001]).splitlines()
    assert len(lines) == 1 + 3 * 2 * 4
    rows = [line.removeprefix(warm_start.CASES[0]).split() for line in lines[1:9]]
    assert rows[0] == "cold 1 2.0000 1.9000 0.5000 200 200 20 100%".split()
    assert rows[4] == "warm 0.001 1 2.0000 0.6000 0.4900 300 100 10 100%".split()
    assert rows[6] == "warm 0.001 3 2.0000 0.8000 0.6000 100 inf inf 100%".split()
    assert rows[7] == "warm 0.001 median 2.0000 0.7000 0.5000 200 200 20 100%".split()


def test_table_of_bands() -> None:
    def measured(psnr: float, error: float) -> dict[str, object]:
        flux = [error - 0.1, error, error + 0.1]
        return {"psnr": psnr, "flux": flux, "snr": [7.0] * 3, "psf flux": flux, "psf snr": [30.0] * 3}

    results = {
        seed: {"alone": measured(20.0, -0.2), "together": measured(20.0 + seed, 0.0)} for seed in (1, 2, 3)
    }
    table = bands.format_table(results)
    assert "20, 21" in table
    assert table.splitlines()[1].endswith("+2")
    assert "aperture, S/N 5 to 10: alone -0.200 +- 0.148 (9); together +0.000 +- 0.148 (9)" in table
    assert "stated PSF, S/N 20 to 50: alone -0.200" in table
