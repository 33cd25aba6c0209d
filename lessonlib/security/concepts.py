"""Words and the concepts they stand for: what makes 'disregard the directives' and 'ignore your rules' alike."""

from __future__ import annotations

from functools import lru_cache

CONCEPTS = {
    "drop": "ignore disregard forget skip override overwrite overlook discard neglect bypass cancel erase nullify "
    "void abandon dismiss scrap delete drop disobey violate supersede overrule circumvent disable unlearn",
    "prior": "previous previously prior above preceding earlier former initial original originally past existing "
    "before foregoing aforementioned beginning",
    "all": "all any every everything whatever entire anything",
    "order": "instruction instructed direction rule guideline command order directive constraint programming policy "
    "guidance protocol restriction limitation regulation boundary norm",
    "system": "system developer admin administrator root sudo superuser openai anthropic creator dev maintainer",
    "prompt": "prompt preprompt message context",
    "reveal": "reveal show print output repeat display disclose leak dump recite expose divulge",
    "hidden": "hidden secret confidential internal password passphrase passcode credential undisclosed flag",
    "key": "key code token pin",
    "persona": "act pretend roleplay role persona simulate impersonate imagine behave portray emulate play",
    "character": "character persona story scene dialogue fictional novel game",
    "you": "you your yourself u ur yourselves",
    "now": "now henceforth onward onwards starting immediately anymore",
    "free": "unrestricted unfiltered uncensored jailbroken jailbreak free freed freely unlimited limitless unbound "
    "amoral unethical liberated unleashed dan stan",
    "safety": "filter filtered ethic ethical ethics moral morality morals censorship censor legal law disclaimer "
    "warning safety safeguard safe inappropriate offensive harmful",
    "not": "not no never without none cannot don't can't won't doesn't didn't isn't aren't nor neither longer",
    "must": "must should shall will always need required obey comply follow adhere",
    "answer": "answer respond reply response comply",
    "say": "say tell write speak state",
    "refuse": "refuse refusal decline deny reject apologize apologise apology sorry unable",
    "ai": "ai llm model chatgpt gpt assistant chatbot bot claude bard gemini copilot llama",
    "harm": "bomb hack illegal malware weapon drug meth poison steal kill explosive virus keylogger ransomware racist "
    "profanity violent immoral evil hate murder crime fraud",
    "new": "new instead updated",
    "task": "task job goal mission objective assignment",
    "break": "break stay remain keep maintain",
    "send": "send forward upload exfiltrate transmit transfer post email fetch",
    "tool": "tool function api shell execute run invoke browser plugin curl",
    "data": "contact history credential record conversation chat database inbox",
    "user": "user customer human",
    "enable": "enable activate unlock enter engage enabled activated granted disabled",
    "mode": "mode access privilege session simulation",
    "end": "end begin start stop",
    "me": "me my i i'm mine",
    "this": "this these the following below next",
    "text": "text word words sentence paragraph line lines verbatim",
    "ask": "what how why who when which where explain describe does is",
    "make": "create generate summarize summarise translate classify suggest list give provide rewrite compose draft",
    "security": "injection attack vulnerability guardrail defend protect detect prevent mitigate flagged security",
    "mean": "mean means meaning example phrase called term definition difference",
    "sheet": "csv column row header file git warning css script spreadsheet header",
    "mark": "<|im_start|> <|im_end|> <|endoftext|> <|system|> <|user|> [inst] [/inst] <<sys>> <</sys>> </s> <s> ### "
    "--- ===",
    "quote": '" ` “ ”',
}
NAMES = tuple(CONCEPTS)
_INDEX: dict[str, int] = {}
for _number, _words in enumerate(CONCEPTS.values()):
    for _word in _words.split():
        _INDEX.setdefault(_word, _number)
_ENDINGS = ("s", "d", "es", "ed", "ing", "ly", "r", "n't")

# What English is recognised by when a view has been decoded: its commonest words and those above.
COMMON = frozenset(
    """
    the of and to in a is that it for on was as with be by at this have from or had not are but what all were when
    we there can an your which their said if do will each about how up out them then she many some so these would
    other into has more her two like him see time could no make than first been its who now people my made over did
    down only way find use may long little very after words just where most know get through back much before go
    good new write our me man too any day same right look think also around another came come work three word must
    because does part even place well such here take why things help put years different away again off went old
    number great tell say small every found still between name should home big give air line set own under read last
    never us left end along while might next sound below saw something thought both few those always looked show
    large often together asked house world going want school important until form food keep children feet land side
    without boy once animals life enough took sometimes four head above kind began almost live page got earth need
    far hand high year mother light parts country father let night following picture being study second book carry
    science eat room friends idea fish stop base hear horse cut sure watch color face wood main open seem hello you
    he they i please answer reply text full only anything question hidden using explain
    """.split()  # noqa: SIM905
)
VOCABULARY = COMMON | {word for word in _INDEX if word.isalpha() and len(word) > 1}


@lru_cache(maxsize=20_000)
def concept(word: str) -> int:
    """The number of a lower-case word's concept (an index of NAMES), or -1. Common endings are seen through."""
    found = _INDEX.get(word, -1)
    if found >= 0 or len(word) < 5:
        return found
    for ending in _ENDINGS:
        if word.endswith(ending):
            stem = word[: -len(ending)]
            for form in (stem, stem + "e", stem[:-1] if stem[-1:] == stem[-2:-1] else stem):
                if len(form) > 2 and form in _INDEX:
                    return _INDEX[form]
    return -1
