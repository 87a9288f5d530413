"""The pages that show no score of a default forest: their blocks run, with few trees."""

import pytest

from tests.test_docs import NO_SCORES, check_blocks, workplace  # noqa: F401

pytestmark = pytest.mark.usefixtures("few_trees", "short_training")


@pytest.mark.parametrize("page", NO_SCORES, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_is_shown(page, workplace):  # noqa: F811
    check_blocks(page)
