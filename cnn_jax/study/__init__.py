"""Studies: a claim, a baseline, variants that differ in stated factors, seeds, intervals and a verdict."""
