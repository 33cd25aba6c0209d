"""English words that views are recognised by, beyond the commonest: so that ``1gn0r3`` and ``i.g.n.o.r.e`` are read."""

from __future__ import annotations

from .concepts import VOCABULARY

_MORE = """
    able accept according account action activate actual actually address advice afraid against age ago agree allow
    allowed although amount angry animal apart apply area argue arms army art article attention authority automatic
    bad bank bear beautiful become bed behave believe below best better beyond big bill bit black block blue board
    boat body bomb born boss bottom box boy brain bread break bring brother build business busy buy care careful carry
    case cause center certain certainly chance change character cheap check child choose citizen claim class clean
    clear close cold college common company complete completely computer concern condition confirm consider constraint
    contact contain content continue control conversation copy correct cost could country course cover create created
    criminal crucial customer daily danger dangerous dark date dead deal death decide deep define definitely depend
    describe design detail detailed devil dictionary die difference difficult direct directly discuss document door
    doubt draw dream drive drug during early easy effect effort eight either else email employee encode engine english
    enjoy entire error especially essay even evening event ever everyone everything evil exact exactly example except
    excellent execute exist expect expert explain express extra fact fail fake fall false family famous far fast fear
    feel feeling fiction figure final finally fine finish fire five fix floor forbidden force foreign forever fox free
    friend front fun funny future game general gift girl glad god gone government grandmother ground group grow guess
    guide gun hacker hair half happen happy hard hate health heart heat heavy helpful high history hold hope hot hour
    how however human hundred husband ice idea important improve include increase inform insult interest internet item
    job join joke judge jump just keep kid kill kind king kitchen know knowledge language late laugh law lead leader
    learn least leave legal less lesson letter level lie likely limit list listen listening lock lose lost love low
    luck machine magic mail main manage manager market married matter maybe meal measure media meet meeting member
    memory mention mind minute miss mistake moment money month moon moral morning move movie music must myself nature
    near necessary need news nice nobody nothing notice nowhere obviously offer office often okay only opinion
    opposite option order others otherwise owner page paint paper pass past pay peace perfect perhaps person personal
    phone pick piece pirate plan plane please poem point poison police political poor position possible power present
    president press pretty price problem process produce product program project promise proof protect public pull
    purpose push quality quick quickly quiet quite race rain rather reach reaction ready real reality really reason
    receive recent record red refuse regard regardless relax remain remember remove research responsible rest result
    rich ride ring rise road rock room rude safe sale same save scene science screen sea search seat security seem
    sell send sense sentence separate serious serve service session seven sex shape share short shout shut side sign
    silence silly similar simple simply since single sister sit six size skill sleep slow smart social society soft
    software sold someone song soon sort soul source space speak speech spell spend spy stage stand star state stay
    steal step still store story strange street strong student stuff stupid style subject success sudden suggest
    summer sun support suppose surprise sweet sword talk tape taste teach teacher team terrible test thank thanks
    theory thing third thousand threat three through throw ticket tip title today together tomorrow tonight topic
    total touch toward town trade train translate translator travel treat trick trouble true trust truth try turn type
    ugly under understand universe unless unlike untrue upon upset usual value various version video view village
    villain violence visit voice vote wait walk wall war warm waste watch weather week weight welcome whatever wheel
    whether white whole whose wife wild win wind window wish without woman wonder wood worry worse worst worth wrong
    wrote yes yesterday yet young zero
"""
WORDS = frozenset(VOCABULARY | {word for word in _MORE.split() if len(word) > 2} | {"a", "i"})
_ENDINGS = ("s", "d", "ed", "ing", "ly")
WITH_ENDINGS = WORDS | {word + ending for word in WORDS if len(word) > 2 for ending in _ENDINGS}
