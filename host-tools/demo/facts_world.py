"""Units, colours, opposites, the calendar, small arithmetic and words across languages. Rows are en | hi | kn."""

from facts_places import LANGUAGES

# How many x are in one y: number, x, y. Units keep one form per language so that any template can hold them.
UNITS = """
60 | seconds, minute | सेकंड, मिनट | ಸೆಕೆಂಡುಗಳು, ನಿಮಿಷ
60 | minutes, hour | मिनट, घंटे | ನಿಮಿಷಗಳು, ಗಂಟೆ
24 | hours, day | घंटे, दिन | ಗಂಟೆಗಳು, ದಿನ
7 | days, week | दिन, सप्ताह | ದಿನಗಳು, ವಾರ
12 | months, year | महीने, साल | ತಿಂಗಳುಗಳು, ವರ್ಷ
52 | weeks, year | सप्ताह, साल | ವಾರಗಳು, ವರ್ಷ
365 | days, year | दिन, साल | ದಿನಗಳು, ವರ್ಷ
10 | years, decade | साल, दशक | ವರ್ಷಗಳು, ದಶಕ
100 | years, century | साल, शताब्दी | ವರ್ಷಗಳು, ಶತಮಾನ
10 | millimetres, centimetre | मिलीमीटर, सेंटीमीटर | ಮಿಲಿಮೀಟರ್‌ಗಳು, ಸೆಂಟಿಮೀಟರ್
100 | centimetres, metre | सेंटीमीटर, मीटर | ಸೆಂಟಿಮೀಟರ್‌ಗಳು, ಮೀಟರ್
1000 | metres, kilometre | मीटर, किलोमीटर | ಮೀಟರ್‌ಗಳು, ಕಿಲೋಮೀಟರ್
1000 | grams, kilogram | ग्राम, किलोग्राम | ಗ್ರಾಂಗಳು, ಕಿಲೋಗ್ರಾಂ
1000 | kilograms, tonne | किलोग्राम, टन | ಕಿಲೋಗ್ರಾಂಗಳು, ಟನ್
1000 | millilitres, litre | मिलीलीटर, लीटर | ಮಿಲಿಲೀಟರ್‌ಗಳು, ಲೀಟರ್
1000 | millivolts, volt | मिलीवोल्ट, वोल्ट | ಮಿಲಿವೋಲ್ಟ್‌ಗಳು, ವೋಲ್ಟ್
1000 | watts, kilowatt | वाट, किलोवाट | ವ್ಯಾಟ್‌ಗಳು, ಕಿಲೋವ್ಯಾಟ್
8 | bits, byte | बिट, बाइट | ಬಿಟ್‌ಗಳು, ಬೈಟ್
1024 | bytes, kibibyte | बाइट, किबीबाइट | ಬೈಟ್‌ಗಳು, ಕಿಬಿಬೈಟ್
12 | things, dozen | चीज़ें, दर्जन | ವಸ್ತುಗಳು, ಡಜನ್
100 | paise, rupee | पैसे, रुपये | ಪೈಸೆಗಳು, ರೂಪಾಯಿ
360 | degrees, circle | डिग्री, वृत्त | ಡಿಗ್ರಿಗಳು, ವೃತ್ತ
"""

# x is measured in y.
QUANTITIES = """
length, metre | लंबाई, मीटर | ಉದ್ದ, ಮೀಟರ್
mass, kilogram | द्रव्यमान, किलोग्राम | ದ್ರವ್ಯರಾಶಿ, ಕಿಲೋಗ್ರಾಂ
time, second | समय, सेकंड | ಸಮಯ, ಸೆಕೆಂಡ್
electric current, ampere | विद्युत धारा, एम्पियर | ವಿದ್ಯುತ್ ಪ್ರವಾಹ, ಆಂಪಿಯರ್
voltage, volt | वोल्टेज, वोल्ट | ವೋಲ್ಟೇಜ್, ವೋಲ್ಟ್
power, watt | शक्ति, वाट | ಶಕ್ತಿ, ವ್ಯಾಟ್
energy, joule | ऊर्जा, जूल | ಚೈತನ್ಯ, ಜೂಲ್
force, newton | बल, न्यूटन | ಬಲ, ನ್ಯೂಟನ್
resistance, ohm | प्रतिरोध, ओम | ರೋಧ, ಓಮ್
frequency, hertz | आवृत्ति, हर्ट्ज़ | ಆವರ್ತನ, ಹರ್ಟ್ಜ್
pressure, pascal | दाब, पास्कल | ಒತ್ತಡ, ಪಾಸ್ಕಲ್
temperature, kelvin | तापमान, केल्विन | ತಾಪಮಾನ, ಕೆಲ್ವಿನ್
"""

# x has the colour y (colour keys below).
COLOURED = """
the sky, blue | आसमान, blue | ಆಕಾಶ, blue
the sea, blue | समुद्र, blue | ಸಮುದ್ರ, blue
grass, green | घास, green | ಹುಲ್ಲು, green
a leaf, green | पत्ता, green | ಎಲೆ, green
snow, white | बर्फ़, white | ಹಿಮ, white
milk, white | दूध, white | ಹಾಲು, white
salt, white | नमक, white | ಉಪ್ಪು, white
coal, black | कोयला, black | ಕಲ್ಲಿದ್ದಲು, black
a crow, black | कौआ, black | ಕಾಗೆ, black
blood, red | ख़ून, red | ರಕ್ತ, red
a tomato, red | टमाटर, red | ಟೊಮೆಟೊ, red
a strawberry, red | स्ट्रॉबेरी, red | ಸ್ಟ್ರಾಬೆರಿ, red
a banana, yellow | केला, yellow | ಬಾಳೆಹಣ್ಣು, yellow
the sun, yellow | सूरज, yellow | ಸೂರ್ಯ, yellow
a lemon, yellow | नींबू, yellow | ನಿಂಬೆಹಣ್ಣು, yellow
a carrot, orange | गाजर, orange | ಕ್ಯಾರೆಟ್, orange
an elephant, grey | हाथी, grey | ಆನೆ, grey
chocolate, brown | चॉकलेट, brown | ಚಾಕೊಲೇಟ್, brown
an aubergine, purple | बैंगन, purple | ಬದನೆಕಾಯಿ, purple
a flamingo, pink | फ़्लेमिंगो, pink | ಫ್ಲೆಮಿಂಗೊ, pink
"""

COLOURS = {
    "blue": ("blue", "नीला", "ನೀಲಿ"), "green": ("green", "हरा", "ಹಸಿರು"), "white": ("white", "सफ़ेद", "ಬಿಳಿ"),
    "black": ("black", "काला", "ಕಪ್ಪು"), "red": ("red", "लाल", "ಕೆಂಪು"), "yellow": ("yellow", "पीला", "ಹಳದಿ"),
    "orange": ("orange", "नारंगी", "ಕಿತ್ತಳೆ"), "grey": ("grey", "स्लेटी", "ಬೂದು"), "brown": ("brown", "भूरा", "ಕಂದು"),
    "purple": ("purple", "बैंगनी", "ನೇರಳೆ"), "pink": ("pink", "गुलाबी", "ಗುಲಾಬಿ"),
}

OPPOSITES = {
    "en": "hot cold, big small, up down, left right, day night, fast slow, open closed, full empty, new old, good bad, "
          "light dark, high low, long short, wet dry, hard soft, strong weak, early late, near far, happy sad, clean dirty, "
          "heavy light, loud quiet, rich poor, true false, start stop, push pull, inside outside, front back, thick thin, "
          "wide narrow, safe dangerous, easy difficult",
    "hi": "गर्म ठंडा, बड़ा छोटा, ऊपर नीचे, दायाँ बायाँ, दिन रात, तेज़ धीमा, खुला बंद, भरा ख़ाली, नया पुराना, अच्छा बुरा, "
          "उजाला अंधेरा, ऊँचा नीचा, लंबा छोटा, गीला सूखा, कठोर नरम, मज़बूत कमज़ोर, पास दूर, सुख दुख, साफ़ गंदा, भारी हल्का, "
          "अमीर ग़रीब, सच झूठ, अंदर बाहर, आगे पीछे, मोटा पतला, आसान कठिन",
    "kn": "ಬಿಸಿ ತಂಪು, ದೊಡ್ಡ ಚಿಕ್ಕ, ಮೇಲೆ ಕೆಳಗೆ, ಎಡ ಬಲ, ಹಗಲು ರಾತ್ರಿ, ವೇಗ ನಿಧಾನ, ಹೊಸ ಹಳೆಯ, ಒಳ್ಳೆಯ ಕೆಟ್ಟ, ಬೆಳಕು ಕತ್ತಲೆ, "
          "ಎತ್ತರ ತಗ್ಗು, ಉದ್ದ ಗಿಡ್ಡ, ಒದ್ದೆ ಒಣ, ಗಟ್ಟಿ ಮೃದು, ಹತ್ತಿರ ದೂರ, ಸುಖ ದುಃಖ, ಸ್ವಚ್ಛ ಕೊಳಕು, ಭಾರ ಹಗುರ, ಶ್ರೀಮಂತ ಬಡವ, "
          "ಸತ್ಯ ಸುಳ್ಳು, ಒಳಗೆ ಹೊರಗೆ, ಮುಂದೆ ಹಿಂದೆ, ದಪ್ಪ ತೆಳು, ಸುಲಭ ಕಷ್ಟ, ಆರಂಭ ಅಂತ್ಯ",
}

DAYS = {
    "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "hi": "सोमवार मंगलवार बुधवार गुरुवार शुक्रवार शनिवार रविवार",
    "kn": "ಸೋಮವಾರ ಮಂಗಳವಾರ ಬುಧವಾರ ಗುರುವಾರ ಶುಕ್ರವಾರ ಶನಿವಾರ ಭಾನುವಾರ",
}
MONTHS = {
    "en": "January February March April May June July August September October November December",
    "hi": "जनवरी फ़रवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर अक्टूबर नवंबर दिसंबर",
    "kn": "ಜನವರಿ ಫೆಬ್ರವರಿ ಮಾರ್ಚ್ ಏಪ್ರಿಲ್ ಮೇ ಜೂನ್ ಜುಲೈ ಆಗಸ್ಟ್ ಸೆಪ್ಟೆಂಬರ್ ಅಕ್ಟೋಬರ್ ನವೆಂಬರ್ ಡಿಸೆಂಬರ್",
}
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

NUMBERS = {
    "en": "zero one two three four five six seven eight nine ten",
    "hi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ दस",
    "kn": "ಸೊನ್ನೆ ಒಂದು ಎರಡು ಮೂರು ನಾಲ್ಕು ಐದು ಆರು ಏಳು ಎಂಟು ಒಂಬತ್ತು ಹತ್ತು",
}

# Everyday words across languages: asked from English, and from each language into English.
WORDS = """
water | पानी | ನೀರು
fire | आग | ಬೆಂಕಿ
house | घर | ಮನೆ
tree | पेड़ | ಮರ
book | किताब | ಪುಸ್ತಕ
school | विद्यालय | ಶಾಲೆ
friend | दोस्त | ಸ್ನೇಹಿತ
mother | माँ | ತಾಯಿ
father | पिता | ತಂದೆ
child | बच्चा | ಮಗು
dog | कुत्ता | ನಾಯಿ
cat | बिल्ली | ಬೆಕ್ಕು
bird | पक्षी | ಹಕ್ಕಿ
fish | मछली | ಮೀನು
sun | सूरज | ಸೂರ್ಯ
moon | चाँद | ಚಂದ್ರ
rain | बारिश | ಮಳೆ
road | सड़क | ರಸ್ತೆ
door | दरवाज़ा | ಬಾಗಿಲು
food | खाना | ಊಟ
flower | फूल | ಹೂವು
river | नदी | ನದಿ
mountain | पहाड़ | ಬೆಟ್ಟ
hand | हाथ | ಕೈ
eye | आँख | ಕಣ್ಣು
"""


def rows(table):
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def pair(cell):
    return tuple(part.strip() for part in cell.split(","))


def number_facts():
    for cells in rows(UNITS):
        slots = {l: dict(zip("xz", pair(c)), y=cells[0]) for l, c in zip(LANGUAGES, cells[1:])}
        yield "unit", cells[1], slots
    for a in range(11):
        for b in range(11):
            yield "add", f"{a}+{b}", {l: {"x": str(a), "z": str(b), "y": str(a + b)} for l in LANGUAGES}
            if a >= b:
                yield "subtract", f"{a}-{b}", {l: {"x": str(a), "z": str(b), "y": str(a - b)} for l in LANGUAGES}


def word_facts():
    for cells in rows(QUANTITIES):
        yield "quantity", cells[0], {l: dict(zip("xy", pair(c))) for l, c in zip(LANGUAGES, cells)}
    for cells in rows(COLOURED):
        colour = dict(zip(LANGUAGES, COLOURS[pair(cells[0])[1]]))
        yield "colour", cells[0], {l: {"x": pair(c)[0], "y": colour[l]} for l, c in zip(LANGUAGES, cells)}
    for lang, text in OPPOSITES.items():
        for item in text.split(","):
            x, y = item.split()
            yield "opposite", f"{x}-{y}", {lang: {"x": x, "y": y}}
            # Words with two opposites ("light", "short", "छोटा") are asked in one direction only.
            if y not in ("light", "short", "छोटा", "right"):
                yield "opposite", f"{y}-{x}", {lang: {"x": y, "y": x}}
    words = [*zip(*(NUMBERS[l].split() for l in LANGUAGES)), *COLOURS.values(), *rows(WORDS)]
    for en, hi, kn in words:
        yield "to_hindi", en, {"en": {"x": en, "y": hi}, "hi": {"x": en, "y": hi}}
        yield "to_kannada", en, {"en": {"x": en, "y": kn}, "kn": {"x": en, "y": kn}}


def calendar_facts():
    for relation, table in (("next_day", DAYS), ("next_month", MONTHS)):
        names = {l: table[l].split() for l in LANGUAGES}
        n = len(names["en"])
        for i in range(n):
            after = {l: {"x": names[l][i], "y": names[l][(i + 1) % n]} for l in LANGUAGES}
            yield relation, names["en"][i], after
            before = {l: {"x": names[l][i], "y": names[l][i - 1]} for l in LANGUAGES}
            yield relation.replace("next", "previous"), names["en"][i], before
    months = {l: MONTHS[l].split() for l in LANGUAGES}
    for i, days in enumerate(MONTH_DAYS):
        yield "month_days", months["en"][i], {l: {"x": months[l][i], "y": str(days)} for l in LANGUAGES}


def world_facts():
    yield from number_facts()
    yield from word_facts()
    yield from calendar_facts()
