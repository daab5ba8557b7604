"""The pieces that families are put together from: linears, norms, attention, MLPs, experts, rotary tables."""
