"""The short common words that the exact world writes."""

from __future__ import annotations

_TEXT = """
able acid age air also arm army art ask away baby back bag ball band bank bar base bath bead beam bean bear beat
bed bee bell belt best big bird bite blow boat body bone book born boss both bowl box boy bread brick brush bulb
burn bus busy cab cafe cake call calm camp can cap car card care cart case cash cast cat cave chair chalk chin city
clay clip clock cloud club coal coat code coin cold cook cool copy corn cost count cow crab crop crow cup dark date
dawn day deal deep deer desk dice dish dog door down draw dress drum dry duck dust duty ear earth east easy edge
egg end even exit eye face fact fair fall farm fast field film fire fish five flag flat floor flow foam fog food
foot fork form four fox free frog fruit full game gate gift girl give glad glass glue goal goat gold good grain
grass gulf hair half hall ham hand harp hat head hen herb hero high hill home honey hook hope horn horse hotel hour
house ice idea inch ink iron jam jar jazz job joke joy juice jump keep key kid kind king kiss kite knee knife lab
lake lamp land last lawn leaf left lemon life lift lime line lion list load lock log long lunch map mark mask match
meal menu mice milk mill mind mint moon mouse mouth mud music nail name neck nest net news night noon north nose
note nut oak oil old one open oven owl page pain pair palm pan park past path pear pen phone piano pig pin plan
plant plate pond pool post pot rain rat rice river road rock roof room root rope rose sail salt sand sea seed sheep
shelf ship shoe shop silk sink skin sky sleep snow soap sock soil song soup south spoon spot stamp stone stop sugar
sun swan tail tape taxi tea tent tide tiger time toast tool tooth top town toy train tray tree truck tube two uncle
vase view voice wall water wave west wheel wind wing wolf wood wool word year zebra zero zoo
"""
WORDS: tuple[str, ...] = tuple(_TEXT.split())
NUMBERS: tuple[str, ...] = tuple(str(number) for number in range(1_000))
