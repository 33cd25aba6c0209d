"""The five risks of serving a model, each with a defence; ``python -m lessonlib.security.evaluate`` measures them.

Prompt injection: ``validator`` (views, features, corpus, train). Floods: ``rate_limiter``, ``redis_limiter`` and
``admission``. Secrets and personal data in answers: ``output_filter``, ``streaming``, ``canary``. Stealing the model:
``extraction``, ``logit_surface``, ``attacks``. Side channels between tenants: ``tenants``.
"""

from .extraction import ExtractionDetector
from .output_filter import OutputFilter
from .rate_limiter import RateLimiter
from .validator import InputValidator

__all__ = ["ExtractionDetector", "InputValidator", "OutputFilter", "RateLimiter"]
