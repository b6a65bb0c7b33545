# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The tables of the benchmarks of seeds and bands, from results that are
made up.
"""

import numpy as np

from benchmarks import bands, seeds


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
    lines = seeds.format_table([result]).splitlines()
    table = {line[:70].split(": ")[0]: line for line in lines}
    assert "21.00 +- 1.00, 23.00" in table["PSNR, dB"]
    assert "0.5000 +- 0.0000, 0.4000" in table["loss"]
    # Scatters of 0.1 and 0.2 over the seeds; noise of 1/10 and 1/12.5.
    assert "+0.0% +- 15.0%, 20.0%; +0.0%; 9.0%; 2" in table["flux, S/N 10 to 20"]
    assert "+0.0% +- 0.0%, 0.0%; +0.0%; 1.0%; 1" in table["flux, S/N over 50"]
    assert "nan" in table["flux, S/N 5 to 10"]
    assert "200, 2" in lines[-1]
    assert any(line.startswith("scatter of bright pixels") and "25.0%" in line for line in lines)


def test_table_of_bands() -> None:
    def measured(psnr: float, error: float) -> dict[str, object]:
        flux = [error - 0.1, error, error + 0.1]
        return {"psnr": psnr, "flux": flux * 2, "snr": [7.0] * 3 + [30.0] * 3}

    results = {
        seed: {"alone": measured(20.0, -0.2), "together": measured(20.0 + seed, 0.0)} for seed in (1, 2, 3)
    }
    table = bands.format_table(results)
    assert "20, 21" in table
    assert table.splitlines()[1].endswith("+2")
    assert "aperture, S/N 5 to 10: alone -0.200 +- 0.148 (9); together +0.000 +- 0.148 (9)" in table
    assert "aperture, S/N 20 to 50: alone -0.200" in table
