"""Letters that look like Latin ones. A hand-made part of Unicode's confusables (UTS #39), for words, not for names."""

from __future__ import annotations

_ALIKE = {
    "a": "аɑαᴀ∂ꭺ", "b": "ЬьḃƄʙвᏏ", "c": "сϲᴄⅽᏟ", "d": "ԁɗᴅⅾժ", "e": "еєҽᴇ℮ɛε", "f": "ғẝꜰƒ", "g": "ɡցɢ",
    "h": "һհʜнℎ", "i": "іıɩιɪⅰ¡", "j": "јϳᴊ", "k": "кκᴋĸ", "l": "ӏⅼʟ│∣ǀ", "m": "мᴍⅿ", "n": "ոпɴηռ",
    "o": "оοσօᴏ๐০", "p": "рρᴘ", "q": "ԛգ", "r": "гʀɾᴦ", "s": "ѕꜱʂ", "t": "тτᴛ", "u": "υսᴜцʋ", "v": "ѵνᴠⅴ",
    "w": "ԝѡᴡωш", "x": "хχⅹ×", "y": "уүγʏ", "z": "ᴢʐ",
    "A": "АΑᎪ", "B": "ВΒᏴ", "C": "СϹ", "D": "Ꭰ", "E": "ЕΕᎬ", "F": "Ϝ", "G": "ԌᏀ", "H": "НΗᎻ", "I": "ІΙⅠ", "J": "ЈᎫ",
    "K": "КΚᏦ", "L": "Ꮮ", "M": "МΜᎷ", "N": "Ν", "O": "ОΟՕ", "P": "РΡᏢ", "Q": "Ԛ", "R": "ᎡᏒ", "S": "ЅՏᏚ", "T": "ТΤᎢ",
    "U": "Ս", "V": "ѴᏙ", "W": "ԜᎳ", "X": "ХΧ", "Y": "ҮΥ", "Z": "ΖᏃ",
    "'": "’‘ʼ´`′", '"': "“”„«»″", "-": "‐‑‒–—−",
}  # fmt: skip
CONFUSABLES = {other: latin for latin, others in _ALIKE.items() for other in others if other != "`"}
