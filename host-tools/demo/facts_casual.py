"""What strangers type first: small talk and things outside what it knows. Used by the polish stage of the training."""

# More wordings and intents, in the shape of facts_chat.GREETINGS.
SMALL_TALK = {
    "hello": {
        "en": (["hey there", "hello lichen", "hi lichen", "hey lichen", "yo", "hello hello", "greetings", "hi friend", "hello my friend",
                "helo", "hii", "hello robot", "hello model"], "Hello! How can I help you?", "Hello"),
        "hi": (["नमस्ते लाइकेन", "नमस्ते जी", "नमस्कार जी", "अरे नमस्ते", "हेलो", "namaste"], "नमस्ते! मैं आपकी क्या मदद कर सकता हूँ?", "नमस्ते"),
        "kn": (["ನಮಸ್ಕಾರ ಲೈಕನ್", "ನಮಸ್ಕಾರ ಸರ್", "ನಮಸ್ಕಾರ ಗೆಳೆಯ", "ಹೆಲೋ", "namaskara"], "ನಮಸ್ಕಾರ! ನಾನು ನಿಮಗೆ ಹೇಗೆ ಸಹಾಯ ಮಾಡಲಿ?", "ನಮಸ್ಕಾರ")},
    "evening": {
        "en": (["Good evening", "Good afternoon", "good evening to you"], "Good evening! What would you like to know?", "evening"),
        "hi": (["शुभ संध्या", "शुभ दोपहर"], "शुभ संध्या! आप क्या जानना चाहते हैं?", "संध्या"),
        "kn": (["ಶುಭ ಸಂಜೆ", "ಶುಭ ಮಧ್ಯಾಹ್ನ"], "ಶುಭ ಸಂಜೆ! ನೀವು ಏನು ತಿಳಿಯಲು ಬಯಸುತ್ತೀರಿ?", "ಸಂಜೆ")},
    "okay": {
        "en": (["ok", "okay", "yes", "no", "hmm", "I see", "good", "great", "nice", "cool", "fine", "I am fine", "I am fine too", "wow", "sorry", "test", "testing"],
               "What would you like to know?", "know"),
        "hi": (["ठीक है", "हाँ", "नहीं", "अच्छा", "मैं ठीक हूँ", "बहुत बढ़िया"], "आप क्या जानना चाहते हैं?", "जानना"),
        "kn": (["ಸರಿ", "ಹೌದು", "ಇಲ್ಲ", "ಒಳ್ಳೆಯದು", "ನಾನು ಚೆನ್ನಾಗಿದ್ದೇನೆ", "ಚೆನ್ನಾಗಿದೆ"], "ನೀವು ಏನು ತಿಳಿಯಲು ಬಯಸುತ್ತೀರಿ?", "ತಿಳಿಯಲು")},
}

# {c} is a country that is not in the tables, {t} a topic, {a} and {b} numbers above ten, {g} keys struck at random.
OUTSIDE = {
    "en": ["Tell me a joke", "Tell me a story", "Sing a song", "What is love?", "Who is Gandhi?", "Who is the prime minister?", "Who made the world?",
           "What is the capital of {c}?", "Which city is the capital of {c}?", "Where is {c}?", "capital of {c}", "What is {a} + {b}?", "{a} plus {b}",
           "What is {a} times {b}?", "{a} / {b}", "{a} - {b} = ?", "{g}", "{g} {g}", "why", "how", "what", "Do you like {t}?", "What is {t}?",
           "How do I make {t}?", "Write a program about {t}.", "Play {t}", "Where can I buy {t}?", "Is {t} good?", "Give me advice about {t}.",
           "What is the meaning of life?", "Do you have feelings?", "Are you happy?", "How old are you?", "Open the door", "Set an alarm"],
    "hi": ["एक चुटकुला सुनाओ", "एक कहानी सुनाओ", "गाना गाओ", "{c} की राजधानी क्या है?", "{c} कहाँ है?", "{a} + {b} कितना होता है?", "{a} और {b} का योग क्या है?",
           "{t} क्या है?", "क्या आपको {t} पसंद है?", "क्यों", "कैसे", "प्रधानमंत्री कौन है?", "गांधी कौन थे?", "आपकी उम्र क्या है?", "{t} कैसे बनाते हैं?"],
    "kn": ["ಒಂದು ಜೋಕ್ ಹೇಳಿ", "ಒಂದು ಕಥೆ ಹೇಳಿ", "ಹಾಡು ಹಾಡಿ", "{c} ದೇಶದ ರಾಜಧಾನಿ ಯಾವುದು?", "{c} ಎಲ್ಲಿದೆ?", "{a} + {b} ಎಷ್ಟು?", "{a} ಮತ್ತು {b} ಕೂಡಿದರೆ ಎಷ್ಟು?",
           "{t} ಎಂದರೇನು?", "ನಿಮಗೆ {t} ಇಷ್ಟವೇ?", "ಯಾಕೆ", "ಹೇಗೆ", "ಪ್ರಧಾನ ಮಂತ್ರಿ ಯಾರು?", "ಗಾಂಧಿ ಯಾರು?", "ನಿಮ್ಮ ವಯಸ್ಸು ಎಷ್ಟು?", "{t} ಹೇಗೆ ಮಾಡುವುದು?"],
}
OTHER_COUNTRIES = {
    "en": "Sri Lanka, Switzerland, Croatia, Serbia, Jordan, Laos, Cambodia, Oman, Kuwait, Sudan, Somalia, Mali, Angola, Zambia, Bolivia, Ecuador, "
          "Uruguay, Panama, Jamaica, Haiti, Fiji, Samoa, Estonia, Latvia, Malta, Cyprus, Israel, Syria, Libya, Senegal, Texas, California".split(", "),
    "hi": "श्रीलंका, स्विट्ज़रलैंड, क्रोएशिया, जॉर्डन, ओमान, कुवैत, सूडान, सोमालिया, ज़ाम्बिया, बोलीविया, इक्वाडोर, पनामा, जमैका, फ़िजी, माल्टा, सीरिया".split(", "),
    "kn": "ಶ್ರೀಲಂಕಾ, ಸ್ವಿಟ್ಜರ್‌ಲ್ಯಾಂಡ್, ಕ್ರೊಯೇಷಿಯಾ, ಜೋರ್ಡಾನ್, ಒಮಾನ್, ಕುವೈತ್, ಸುಡಾನ್, ಸೊಮಾಲಿಯಾ, ಜಾಂಬಿಯಾ, ಬೊಲಿವಿಯಾ, ಈಕ್ವೆಡಾರ್, ಪನಾಮಾ, ಜಮೈಕಾ, ಫಿಜಿ, ಮಾಲ್ಟಾ, ಸಿರಿಯಾ".split(", "),
}
