"""Pure core of amalgam: records, features, model families, summaries, releases, evaluation."""
