"""A name that is not there says what to write instead."""

import pytest

from circuits.hooked_transformer import utils
from circuits.hooked_transformer.instead import INSTEAD
from tests.hooked_transformer.models import TOKENS, biased

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("owner", INSTEAD)
def test_a_name_that_is_not_there_says_what_to_write_instead(owner):
    model = biased()
    cache = model.run_with_cache(TOKENS)[1]
    owners = {"HookedTransformer": model, "ActivationCache": cache, "utils": utils}
    for name, line in INSTEAD[owner].items():
        with pytest.raises(AttributeError) as error:
            getattr(owners[owner], name)
        assert str(error.value) == f"{owner} has no {name!r} here: write {line}"
