"""From a run's documents to scores on 0-100, by document and by benchmark."""
