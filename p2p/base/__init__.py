"""What every other package stands on: identifiers, errors, time, codecs, frames, schemas, keys (pure)."""
