"""The run-time type checker that jaxtyping's pytest plugin applies to the whole package."""

from beartype import BeartypeConf, beartype

# As type checkers do (PEP 484), take an int where a float is asked for.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
