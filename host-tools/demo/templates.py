"""How each relation is asked (q), answered (a) and stated in running text (s), per language.

x and z are what is asked about, y is the answer. Every fact is trained with most of its questions; the rest are held out
(make_corpus.py chooses them), so a held-out question is a known wording about another fact and a known fact in other words.
"""

TEMPLATES = {
    "capital": {
        "en": {
            "q": ["What is the capital of {x}?", "Which city is the capital of {x}?", "Tell me the capital of {x}.",
                  "Name the capital of {x}.", "{x}: what is its capital?", "What's the capital city of {x}?",
                  "Do you know the capital of {x}?", "Capital of {x}?", "The capital of {x} is which city?"],
            "a": ["The capital of {x} is {y}."],
            "s": ["The capital of {x} is {y}.", "{y} is the capital of {x}.", "{x} has its capital in {y}."]},
        "hi": {
            "q": ["{x} की राजधानी क्या है?", "{x} की राजधानी का नाम बताइए।", "{x} की राजधानी कौन सा शहर है?",
                  "कौन सा शहर {x} की राजधानी है?", "{x} की राजधानी?", "मुझे {x} की राजधानी बताओ।",
                  "क्या आप {x} की राजधानी जानते हैं?"],
            "a": ["{x} की राजधानी {y} है।"],
            "s": ["{x} की राजधानी {y} है।", "{y} शहर {x} की राजधानी है।"]},
        "kn": {
            "q": ["{x} ದೇಶದ ರಾಜಧಾನಿ ಯಾವುದು?", "{x} ದೇಶದ ರಾಜಧಾನಿಯ ಹೆಸರೇನು?", "{x} ದೇಶದ ರಾಜಧಾನಿ ಯಾವ ನಗರ?",
                  "ಯಾವ ನಗರ {x} ದೇಶದ ರಾಜಧಾನಿ?", "{x} ದೇಶದ ರಾಜಧಾನಿ?", "{x} ದೇಶದ ರಾಜಧಾನಿ ಹೇಳಿ.",
                  "{x} ದೇಶದ ರಾಜಧಾನಿ ಗೊತ್ತೇ?"],
            "a": ["{x} ದೇಶದ ರಾಜಧಾನಿ {y}."],
            "s": ["{x} ದೇಶದ ರಾಜಧಾನಿ {y}.", "{y} ನಗರವು {x} ದೇಶದ ರಾಜಧಾನಿ."]}},
    "capital_of": {
        "en": {
            "q": ["{x} is the capital of which country?", "Which country has {x} as its capital?",
                  "Of which country is {x} the capital?", "Whose capital is {x}?", "What country is {x} the capital of?"],
            "a": ["{x} is the capital of {y}."]},
        "hi": {
            "q": ["{x} किस देश की राजधानी है?", "किस देश की राजधानी {x} है?", "{x} कौन से देश की राजधानी है?",
                  "बताओ {x} किस देश की राजधानी है।"],
            "a": ["{x} {y} की राजधानी है।"]},
        "kn": {
            "q": ["{x} ಯಾವ ದೇಶದ ರಾಜಧಾನಿ?", "ಯಾವ ದೇಶದ ರಾಜಧಾನಿ {x}?", "{x} ನಗರ ಯಾವ ದೇಶದ ರಾಜಧಾನಿ?",
                  "{x} ಯಾವ ದೇಶದ ರಾಜಧಾನಿ ಎಂದು ಹೇಳಿ."],
            "a": ["{x} {y} ದೇಶದ ರಾಜಧಾನಿ."]}},
    "continent": {
        "en": {
            "q": ["Which continent is {x} in?", "Where is {x}?", "On which continent is {x}?", "Where in the world is {x}?",
                  "{x} is on which continent?", "Where can I find {x} on a map?"],
            "a": ["{x} is in {y}."], "s": ["{x} is a country in {y}.", "The country {x} is in {y}."]},
        "hi": {
            "q": ["{x} किस महाद्वीप में है?", "{x} कहाँ है?", "{x} कौन से महाद्वीप में है?", "दुनिया में {x} कहाँ है?"],
            "a": ["{x} {y} में है।"], "s": ["{x} {y} का एक देश है।"]},
        "kn": {
            "q": ["{x} ಯಾವ ಖಂಡದಲ್ಲಿದೆ?", "{x} ಎಲ್ಲಿದೆ?", "{x} ದೇಶ ಯಾವ ಖಂಡದಲ್ಲಿದೆ?", "ಪ್ರಪಂಚದಲ್ಲಿ {x} ಎಲ್ಲಿದೆ?"],
            "a": ["{x} {y} ಖಂಡದಲ್ಲಿದೆ."], "s": ["{x} {y} ಖಂಡದ ಒಂದು ದೇಶ."]}},
    "state_capital": {
        "en": {
            "q": ["What is the capital of {x}?", "Which city is the capital of the state of {x}?", "Capital of {x}?",
                  "Tell me the capital of {x}.", "Name the capital of {x}.", "What's the capital city of {x}?",
                  "Do you know the capital of {x}?"],
            "a": ["The capital of {x} is {y}."],
            "s": ["The capital of {x} is {y}.", "{y} is the capital of the Indian state {x}."]},
        "hi": {
            "q": ["{x} की राजधानी क्या है?", "{x} राज्य की राजधानी बताइए।", "{x} की राजधानी कौन सा शहर है?",
                  "कौन सा शहर {x} की राजधानी है?", "{x} की राजधानी?", "मुझे {x} की राजधानी बताओ।"],
            "a": ["{x} की राजधानी {y} है।"],
            "s": ["{x} की राजधानी {y} है।", "{y} भारत के राज्य {x} की राजधानी है।"]},
        "kn": {
            "q": ["{x} ರಾಜ್ಯದ ರಾಜಧಾನಿ ಯಾವುದು?", "{x} ರಾಜ್ಯದ ರಾಜಧಾನಿಯ ಹೆಸರೇನು?", "{x} ರಾಜ್ಯದ ರಾಜಧಾನಿ ಯಾವ ನಗರ?",
                  "ಯಾವ ನಗರ {x} ರಾಜ್ಯದ ರಾಜಧಾನಿ?", "{x} ರಾಜ್ಯದ ರಾಜಧಾನಿ ಹೇಳಿ.", "{x} ರಾಜ್ಯದ ರಾಜಧಾನಿ?"],
            "a": ["{x} ರಾಜ್ಯದ ರಾಜಧಾನಿ {y}."],
            "s": ["{x} ರಾಜ್ಯದ ರಾಜಧಾನಿ {y}.", "{y} ನಗರವು {x} ರಾಜ್ಯದ ರಾಜಧಾನಿ."]}},
    "state_of": {
        "en": {
            "q": ["{x} is the capital of which state?", "Which Indian state has {x} as its capital?",
                  "Of which state is {x} the capital?", "Which state's capital is {x}?"],
            "a": ["{x} is the capital of {y}."]},
        "hi": {
            "q": ["{x} किस राज्य की राजधानी है?", "किस राज्य की राजधानी {x} है?", "{x} कौन से राज्य की राजधानी है?"],
            "a": ["{x} {y} की राजधानी है।"]},
        "kn": {
            "q": ["{x} ಯಾವ ರಾಜ್ಯದ ರಾಜಧಾನಿ?", "ಯಾವ ರಾಜ್ಯದ ರಾಜಧಾನಿ {x}?", "{x} ನಗರ ಯಾವ ರಾಜ್ಯದ ರಾಜಧಾನಿ?"],
            "a": ["{x} {y} ರಾಜ್ಯದ ರಾಜಧಾನಿ."]}},
    "unit": {
        "en": {
            "q": ["How many {x} are in one {z}?", "How many {x} are there in one {z}?", "One {z} is how many {x}?",
                  "How many {x} make one {z}?", "Tell me how many {x} one {z} has.", "One {z} has how many {x}?"],
            "a": ["There are {y} {x} in one {z}."], "s": ["One {z} has {y} {x}.", "There are {y} {x} in one {z}."]},
        "hi": {
            "q": ["एक {z} में कितने {x} होते हैं?", "एक {z} में कितने {x} हैं?", "कितने {x} से एक {z} बनता है?",
                  "बताओ एक {z} में कितने {x} होते हैं।"],
            "a": ["एक {z} में {y} {x} होते हैं।"], "s": ["एक {z} में {y} {x} होते हैं।"]},
        "kn": {
            "q": ["ಒಂದು {z} ಎಂದರೆ ಎಷ್ಟು {x}?", "ಒಂದು {z} ಗೆ ಎಷ್ಟು {x}?", "ಎಷ್ಟು {x} ಸೇರಿದರೆ ಒಂದು {z}?",
                  "ಒಂದು {z} ಗೆ ಎಷ್ಟು {x} ಎಂದು ಹೇಳಿ."],
            "a": ["ಒಂದು {z} ಗೆ {y} {x}."], "s": ["ಒಂದು {z} ಗೆ {y} {x}."]}},
    "quantity": {
        "en": {
            "q": ["What is the unit of {x}?", "In which unit is {x} measured?", "How do we measure {x}?",
                  "What unit is used for {x}?", "Which unit measures {x}?"],
            "a": ["The unit of {x} is the {y}."], "s": ["We measure {x} in units of one {y}.", "The unit of {x} is the {y}."]},
        "hi": {
            "q": ["{x} की इकाई क्या है?", "{x} किस इकाई में नापते हैं?", "{x} को कैसे नापते हैं?", "{x} की इकाई बताओ।"],
            "a": ["{x} की इकाई {y} है।"], "s": ["{x} की इकाई {y} है।"]},
        "kn": {
            "q": ["{x} ಅಳೆಯುವ ಏಕಮಾನ ಯಾವುದು?", "{x} ಗೆ ಏಕಮಾನ ಏನು?", "{x} ಅನ್ನು ಯಾವ ಏಕಮಾನದಲ್ಲಿ ಅಳೆಯುತ್ತಾರೆ?",
                  "{x} ಹೇಗೆ ಅಳೆಯುವುದು?"],
            "a": ["{x} ಅಳೆಯುವ ಏಕಮಾನ {y}."], "s": ["{x} ಅಳೆಯುವ ಏಕಮಾನ {y}."]}},
    "colour": {
        "en": {
            "q": ["What colour is {x}?", "What is the colour of {x}?", "Which colour does {x} have?", "Tell me the colour of {x}.",
                  "{x}: what colour?", "What color is {x}?"],
            "a": ["The colour of {x} is {y}."], "s": ["The colour of {x} is {y}."]},
        "hi": {
            "q": ["{x} का रंग क्या है?", "{x} किस रंग का होता है?", "{x} का रंग बताओ।", "{x} का रंग कैसा होता है?"],
            "a": ["{x} का रंग {y} होता है।"], "s": ["{x} का रंग {y} होता है।"]},
        "kn": {
            "q": ["{x} ಯಾವ ಬಣ್ಣ?", "{x} ಬಣ್ಣ ಏನು?", "{x} ಯಾವ ಬಣ್ಣದಲ್ಲಿರುತ್ತದೆ?", "{x} ಬಣ್ಣ ಹೇಳಿ."],
            "a": ["{x} ಬಣ್ಣ {y}."], "s": ["{x} ಬಣ್ಣ {y}."]}},
    "opposite": {
        "en": {
            "q": ["What is the opposite of {x}?", "Opposite of {x}?", "Tell me the opposite of {x}.",
                  "What's the opposite of the word {x}?", "Which word is the opposite of {x}?"],
            "a": ["The opposite of {x} is {y}."], "s": ["The opposite of {x} is {y}."]},
        "hi": {
            "q": ["{x} का उल्टा क्या है?", "{x} का विलोम शब्द क्या है?", "{x} का विलोम बताओ।", "{x} का उल्टा शब्द बताइए।"],
            "a": ["{x} का उल्टा {y} है।"], "s": ["{x} का उल्टा {y} है।"]},
        "kn": {
            "q": ["{x} ಪದದ ವಿರುದ್ಧ ಪದ ಯಾವುದು?", "{x} ಗೆ ವಿರುದ್ಧ ಪದ ಏನು?", "{x} ಪದದ ವಿರುದ್ಧಾರ್ಥಕ ಪದ ಹೇಳಿ.", "{x} ವಿರುದ್ಧ ಏನು?"],
            "a": ["{x} ಪದದ ವಿರುದ್ಧ ಪದ {y}."], "s": ["{x} ಪದದ ವಿರುದ್ಧ ಪದ {y}."]}},
    "add": {
        "en": {
            "q": ["What is {x} + {z}?", "What is {x} plus {z}?", "How much is {x} and {z}?", "{x} + {z} = ?", "Add {x} and {z}.",
                  "{x} plus {z}?"],
            "a": ["{x} + {z} = {y}."], "s": ["{x} + {z} = {y}."]},
        "hi": {
            "q": ["{x} + {z} कितना होता है?", "{x} और {z} का योग क्या है?", "{x} में {z} जोड़ो।", "{x} और {z} कितने होते हैं?"],
            "a": ["{x} + {z} = {y}."]},
        "kn": {
            "q": ["{x} + {z} ಎಷ್ಟು?", "{x} ಮತ್ತು {z} ಕೂಡಿದರೆ ಎಷ್ಟು?", "{x} ಮತ್ತು {z} ಮೊತ್ತ ಏನು?", "{x} ಮತ್ತು {z} ಕೂಡಿಸಿ."],
            "a": ["{x} + {z} = {y}."]}},
    "subtract": {
        "en": {
            "q": ["What is {x} - {z}?", "What is {x} minus {z}?", "{x} - {z} = ?", "Take {z} away from {x}.", "{x} minus {z}?"],
            "a": ["{x} - {z} = {y}."], "s": ["{x} - {z} = {y}."]},
        "hi": {
            "q": ["{x} - {z} कितना होता है?", "{x} में से {z} घटाओ।", "{x} से {z} घटाने पर क्या बचता है?"],
            "a": ["{x} - {z} = {y}."]},
        "kn": {
            "q": ["{x} - {z} ಎಷ್ಟು?", "{x} ರಲ್ಲಿ {z} ಕಳೆದರೆ ಎಷ್ಟು?", "{x} ರಿಂದ {z} ಕಳೆಯಿರಿ."],
            "a": ["{x} - {z} = {y}."]}},
    "to_hindi": {
        "en": {
            "q": ["How do you say {x} in Hindi?", "What is {x} in Hindi?", "What is the Hindi word for {x}?",
                  "Translate {x} to Hindi.", "Say {x} in Hindi."],
            "a": ["The Hindi word for {x} is {y}."], "s": ["The Hindi word for {x} is {y}."]},
        "hi": {
            "q": ["{x} को हिंदी में क्या कहते हैं?", "हिंदी में {x} का अर्थ क्या है?", "{x} का हिंदी शब्द बताओ।"],
            "a": ["{x} को हिंदी में {y} कहते हैं।"]}},
    "to_kannada": {
        "en": {
            "q": ["How do you say {x} in Kannada?", "What is {x} in Kannada?", "What is the Kannada word for {x}?",
                  "Translate {x} to Kannada.", "Say {x} in Kannada."],
            "a": ["The Kannada word for {x} is {y}."], "s": ["The Kannada word for {x} is {y}."]},
        "kn": {
            "q": ["{x} ಗೆ ಕನ್ನಡದಲ್ಲಿ ಏನೆನ್ನುತ್ತಾರೆ?", "ಕನ್ನಡದಲ್ಲಿ {x} ಅರ್ಥ ಏನು?", "{x} ಪದಕ್ಕೆ ಕನ್ನಡ ಪದ ಹೇಳಿ."],
            "a": ["{x} ಗೆ ಕನ್ನಡದಲ್ಲಿ {y} ಎನ್ನುತ್ತಾರೆ."]}},
    "month_days": {
        "en": {
            "q": ["How many days are in {x}?", "How many days does {x} have?", "{x} has how many days?",
                  "Tell me the number of days in {x}."],
            "a": ["{x} has {y} days."], "s": ["The month of {x} has {y} days."]},
        "hi": {
            "q": ["{x} में कितने दिन होते हैं?", "{x} कितने दिन का होता है?", "बताओ {x} में कितने दिन हैं।"],
            "a": ["{x} में {y} दिन होते हैं।"]},
        "kn": {
            "q": ["{x} ತಿಂಗಳಲ್ಲಿ ಎಷ್ಟು ದಿನಗಳಿವೆ?", "{x} ತಿಂಗಳಿಗೆ ಎಷ್ಟು ದಿನ?", "{x} ತಿಂಗಳಲ್ಲಿ ಎಷ್ಟು ದಿನ ಇವೆ ಹೇಳಿ."],
            "a": ["{x} ತಿಂಗಳಲ್ಲಿ {y} ದಿನಗಳಿವೆ."]}},
}


def order(kind, en_noun, hi_noun, kn_noun):
    """Before and after, for days and months alike."""
    word = {"next": ("after", "के बाद", "ನಂತರ"), "previous": ("before", "से पहले", "ಮೊದಲು")}[kind]
    follow = {"next": "comes after", "previous": "comes before"}[kind]
    return {
        "en": {
            "q": [f"Which {en_noun} {follow} {{x}}?", f"What {en_noun} is {word[0]} {{x}}?", f"What {follow} {{x}}?",
                  f"Tell me the {en_noun} {word[0]} {{x}}."],
            "a": [f"The {en_noun} {word[0]} {{x}} is {{y}}."], "s": [f"The {en_noun} {word[0]} {{x}} is {{y}}."]},
        "hi": {
            "q": [f"{{x}} {word[1]} कौन सा {hi_noun} आता है?", f"{{x}} {word[1]} क्या आता है?", f"{{x}} {word[1]} कौन सा {hi_noun} है?"],
            "a": [f"{{x}} {word[1]} {{y}} आता है।"], "s": [f"{{x}} {word[1]} {{y}} आता है।"]},
        "kn": {
            "q": [f"{{x}} {word[2]} ಯಾವ {kn_noun} ಬರುತ್ತದೆ?", f"{{x}} {word[2]} ಏನು ಬರುತ್ತದೆ?", f"{{x}} {word[2]} ಬರುವ {kn_noun} ಯಾವುದು?"],
            "a": [f"{{x}} {word[2]} {{y}} ಬರುತ್ತದೆ."], "s": [f"{{x}} {word[2]} {{y}} ಬರುತ್ತದೆ."]}}


for _kind in ("next", "previous"):
    TEMPLATES[f"{_kind}_day"] = order(_kind, "day", "दिन", "ದಿನ")
    TEMPLATES[f"{_kind}_month"] = order(_kind, "month", "महीना", "ತಿಂಗಳು")
