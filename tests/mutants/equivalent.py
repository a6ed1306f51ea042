"""Changes of the sample that no test can notice, each with the reason: by the lines before and after."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "youden_E = np.round(true_E - false_E, 12)[1:-1]  # equal ones differ in the last digits",
        "youden_E = np.round(true_E - false_E, 13)[1:-1]  # equal ones differ in the last digits",
    ): "shares differ by 1e-16 where they are equal, and by one in so many patients where they are not",
    (
        "_NUM_STEPS, _NUM_HALVINGS, _SMALL_STEP = 60, 20, 1e-9",
        "_NUM_STEPS, _NUM_HALVINGS, _SMALL_STEP = 61, 20, 1e-9",
    ): "a bound that no fit comes near: it has ended after some ten steps",
}
