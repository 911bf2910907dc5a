"""The licence identifiers that the Hub accepts in the head of a model card."""

import difflib

from hfclip.errors import ArgumentError

# Source: docs/hub/repositories-licenses.md of github.com/huggingface/hub-docs, plus later entries
# of https://huggingface.co/docs/hub/repositories-licenses, such as those for Apple and Llama 3.
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
    intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other
    """.split()  # noqa: SIM905  # a list of strings would fill a page
)


def check_license(name: str) -> None:
    """Checks that the Hub knows a licence identifier.

    Raises:
        ArgumentError: The identifier is not in the Hub's list. The message suggests a similar one.
    """
    if name in LICENSES:
        return
    near = difflib.get_close_matches(name.lower().replace(" ", "-"), LICENSES, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ArgumentError(
        f"`license` is {name!r}; expected one of the Hub's identifiers, such as 'mit' or "
        f"'apache-2.0'.{suggestion} For a licence without an identifier, use 'other'. If the Hub "
        "has added this identifier recently, write it in the head of your own README.md: the Hub "
        "checks it there."
    )
