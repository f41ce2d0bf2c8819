"""probcl: probabilistic bimodal contrastive learning.

Two encoders and an alignment of their outputs are a learned conditional distribution of each modality given the
other. Fit it with a loss, then retrieve, classify, sample and evaluate with it.

The public names stand in ``__init__.pyi``. Each is imported when it is first asked for, because torch and what else
is below takes seconds, which neither ``probcl --help`` nor the user of one loss should wait for.
"""

import lazy_loader

__version__ = "0.1.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
