"""One spelling of a cache with its settings, everywhere."""

import pytest

from studio.errors import RequestError
from studio.preset import find_preset
from studio.requests.caches import METHODS, cache_text, parse_cache, why_not
from studio.requests.checks import check_request
from studio.requests.generation import request_for


@pytest.mark.parametrize(
    "text",
    [
        *METHODS,
        "adacache:moreg=true",
        "adacache:codebook=slow,metric_layers=[1, 2]",
        "adacache:codebook=custom,thresholds=[0.1, 0.2],rates=[3, 2, 1]",
        "budget:speedup=2.5",
        "pab:timestep_range=[50, 850]",
    ],
)
def test_a_cache_is_spelled_as_it_is_read(text: str) -> None:
    cache = parse_cache(text)
    assert cache_text(cache) == text
    assert parse_cache(cache_text(cache)) == cache


def test_what_differs_from_nothing_is_left_out() -> None:
    assert cache_text(parse_cache("budget:speedup=2")) == "budget"


def test_what_an_earlier_studio_wrote_is_read() -> None:
    assert parse_cache("adacache+moreg:codebook=slow") == parse_cache("adacache:codebook=slow,moreg=true")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("adacash", "Known caches: adacache, budget"),
        ("adacache:moregg=true", "no setting 'moregg'. It has: codebook"),
        ("adacache:moreg", "is no NAME=VALUE. Write adacache:moreg=true"),
        ("budget:speedup=99", "speedup = '99' will not do"),
        ("adacache:codebook=custom", "one rate more than thresholds"),
    ],
)
def test_what_is_no_cache_is_refused_with_what_there_is(text: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_cache(text)
    assert says in str(caught.value)


def test_where_a_method_does_not_work_the_reason_makes_a_sentence_with_the_model() -> None:
    latte = find_preset("latte-1")
    assert why_not("magcache", latte.pipeline)
    with pytest.raises(RequestError, match=r"MagCache does not work with Latte.*: its tokens are turned"):
        check_request(request_for(latte, prompt="a road", cache={"method": "magcache"}), latte)
