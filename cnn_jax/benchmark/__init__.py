"""How fast training is: ours against a peer, measured in turn, and predicted beyond the machines at hand."""
