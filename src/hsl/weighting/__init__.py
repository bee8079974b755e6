"""How objectives become one total: the only place where that happens.

What is ours beside torchjd's: a method is torchjd's where its weighting needs no solver that we do not have, keeps no
state outside of the checkpoint, and gives the weights of the formula for norms up to 1e8 apart. torchjd 0.18:

- UPGrad: is torchjd's, with a projector of ours in place of quadprog (GPL).
- Nash-MTL and CAGrad ask for cvxpy with ECOS or CLARABEL.
- PCGrad has equal weights, but draws its order from torch's global generator: a resumed run would go another way.
- MGDA only comes near the least norm (in 200 random Gramians of 2 to 7 gradients up to 30 times it) and takes 32
  times as long.
- IMTL-G and Aligned-MTL are equal to 3e-9 up to norms 1e4 apart; at 1e8 weights are off by 1 and by 0.5.
- IMGrad is in no library.

torchjd stays the oracle of the tests for all that it can solve.
"""

MAX_FAILURES = 0.01  # share of the steps past which a run is degraded; here since a report reads it without torch
