"""``pyrovae parts [NAME]``: list what a VAE is made of, read from the classes themselves.

Without a name: every prior, likelihood, guide, network and objective with its density and its arguments. With one: all that
is said of it, and how to ask for it.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db

from pyrovae import guides, likelihoods, networks, objectives, priors
from pyrovae.errors import InputError
from pyrovae.experiment.messages import is_abstract, nearest
from pyrovae.experiment.parser import make_parser, parse
from pyrovae.guides import Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import Network
from pyrovae.objectives import Objective
from pyrovae.priors import Prior

bases = {priors: Prior, likelihoods: Likelihood, guides: Guide, networks: Network, objectives: Objective}
given = {"self", "event_shape", "latent_dim", "encoder", "in_shape", "out_shape"}
"""Arguments that ``VAE`` hands to a part."""


_block = re.compile(r"\.\. math::\n((?: {4}.*\n|\n)+)")
"""A formula on lines of its own."""


def main(argv: Sequence[str]) -> int:
    """Print the catalogue, or one of its entries."""
    parser = make_parser("pyrovae parts", __doc__)
    parser.add_argument("name", type=str, nargs="?", default=None, help="A part, such as Vamp; if not given, all.")
    name = parse(parser, argv).name
    print("\n".join(_catalogue() if name is None else _entries(name)))
    return 0


def catalogue() -> dict[str, dict[str, type]]:
    """The concrete classes of each room, by name."""
    return {
        room.__name__.rpartition(".")[2]: {
            name: getattr(room, name) for name in room.__all__ if _is_a(base, getattr(room, name))
        }
        for room, base in bases.items()
    }


def _is_a(base: type, part: Any) -> bool:
    return inspect.isclass(part) and issubclass(part, base) and not is_abstract(part)


def _catalogue() -> Iterator[str]:
    for room, parts in catalogue().items():
        yield f"{room}\n{'=' * len(room)}\n"
        for name, part in parts.items():
            yield f"{name}({', '.join(_arguments(part))})"
            yield f"    {_first_line(part)}"
            density = _density(part)
            yield f"    {density}\n" if density else ""
    yield "`pyrovae parts NAME` says more of one."


def _entries(name: str) -> Iterator[str]:
    found = {room: parts[name] for room, parts in catalogue().items() if name in parts}
    if not found:
        names = sorted({name for parts in catalogue().values() for name in parts})
        raise InputError(f"{name!r} is not a part; {nearest(name, names, 'there are')}")
    for room, part in found.items():
        heading = f"pyrovae.{room}.{name}({', '.join(_arguments(part))})"
        yield f"{heading}\n{'-' * len(heading)}\n\n{_readable(inspect.getdoc(part) or '')}\n\n{_how(room, name)}\n"


def _first_line(part: type) -> str:
    return _readable((inspect.getdoc(part) or "").partition("\n\n")[0].replace("\n", " "))


def _arguments(part: type) -> list[str]:
    """The arguments that one chooses, with their defaults."""
    parameters = inspect.signature(part).parameters.values()
    return [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={_shown(parameter.default)}"
        for parameter in parameters
        if parameter.name not in given and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, partial):
        return f"{_shown(value.func)}({', '.join(f'{name}={_shown(option)}' for name, option in value.keywords.items())})"
    return value.__name__ if inspect.isclass(value) else repr(value)


def _density(part: type) -> str:
    """The first formula of a docstring."""
    block = _block.search(f"{inspect.getdoc(part)}\n")
    return _unicode(block[1]).partition("    ")[0].rstrip(",") if block else ""


def _readable(text: str) -> str:
    """Convert a docstring's formulas to plain characters and its roles to what they name."""
    text = _block.sub(lambda found: f"    {_unicode(found[1])}\n\n", text + "\n")
    text = re.sub(r":math:`([^`]*)`", lambda found: _unicode(found[1]), text)
    text = re.sub(r":\w+:`~?\.?([^`]*)`", r"\1", text)
    return re.sub(r"``([^`]*)``", r"\1", text).rstrip()


def _unicode(formula: str) -> str:
    line = " ".join(formula.split()).replace(r"\tfrac", r"\frac")
    line = re.sub(r"\\binom\{([^{}]*)\}\{([^{}]*)\}", r"C(\1, \2) ", line)
    return re.sub(r"(?<![\^_])\{(\w+)\}", r"\1", _latex.latex_to_text(f"${line}$").strip())


def _fraction(node: Any, l2tobj: LatexNodes2Text) -> str:
    upper, lower = (l2tobj.nodelist_to_text([argument]).strip() for argument in node.nodeargs)
    return f"{_bracketed(upper)}/{_bracketed(lower)} "


def _bracketed(text: str) -> str:
    text = text.removeprefix("{").removesuffix("}")
    return text if re.fullmatch(r"\w+|\w\([^()]*\)", text) else f"({text})"


def _latex_to_text() -> LatexNodes2Text:
    known = get_default_latex_context_db()
    plain = [MacroTextSpec("frac", _fraction), MacroTextSpec("|", "||")]
    plain += [MacroTextSpec("le", "≤ "), MacroTextSpec("ge", "≥ ")]
    plain += [MacroTextSpec(name, " ") for name in ("left", "right", "bigl", "bigr")]
    known.add_context_category("pyrovae", macros=plain, prepend=True)
    return LatexNodes2Text(known, math_mode="text", keep_braced_groups=True, keep_braced_groups_minlen=2)


_latex = _latex_to_text()


def _how(room: str, name: str) -> str:
    """How to ask for a part in Python and in YAML."""
    if room == "objectives":
        return (
            f"In Python:  pyrovae.fit(vae, x, objective=pyrovae.objectives.{name}(...))\n"
            f"In YAML:    objective: {{class_path: {name}, init_args: {{...}}}}"
        )
    place = "decoder" if name.endswith("Decoder") else "encoder" if room == "networks" else room.removesuffix("s")
    return (
        f"In Python:  pyrovae.VAE(event_shape, {place}=partial(pyrovae.{room}.{name}, ...))\n"
        f"In YAML:    model: {{{place}: {{class_path: {name}, init_args: {{...}}}}}}"
    )
