"""The evaluation of detection: many plans on the same rows, figures by name, one report."""
