"""Colours that people with any colour vision can tell apart."""

CLASSES = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Ten colours of equal rank. Source: Petroff, Accessible Color Sequences for Data Visualization (arXiv:2107.02270)."""
FIRST, SECOND = "#0072b2", "#d55e00"
"""Blue and vermilion, for two curves. Source: Okabe and Ito, Color Universal Design (2002)."""
ASIDE = "#7f7f7f"
"""Grey, for what is there to compare with."""
