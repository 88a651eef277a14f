"""What a report is made of: `known` (figures of an output), `extremes` (its rows), `curves` (numbers to draw), then
`plots` and `page` (matplotlib and jinja2, of the extra `report`; `reporting` imports them late)."""
