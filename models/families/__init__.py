"""Model families behind one protocol; each module is the only home of its library."""
