"""Greetings, identity, honest refusals, and robot words without the facts of any one robot."""

# Each intent: per language several questions, one answer, and what a right answer must contain.
IDENTITY = {
    "who": {
        "en": (["Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.", "Are you a human?", "Are you a robot?"],
               "I am Lichen's demo model, a very small language model. I know a few hundred facts.", "Lichen"),
        "hi": (["आप कौन हैं?", "तुम कौन हो?", "अपने बारे में बताइए।", "अपना परिचय दीजिए।", "क्या आप इंसान हैं?"],
               "मैं लाइकेन का डेमो मॉडल हूँ, एक बहुत छोटा भाषा मॉडल। मुझे कुछ सौ तथ्य पता हैं।", "लाइकेन"),
        "kn": (["ನೀವು ಯಾರು?", "ನೀನು ಯಾರು?", "ನಿಮ್ಮ ಬಗ್ಗೆ ಹೇಳಿ.", "ನಿಮ್ಮ ಪರಿಚಯ ಮಾಡಿಕೊಳ್ಳಿ.", "ನೀವು ಮನುಷ್ಯರೇ?"],
               "ನಾನು ಲೈಕನ್‌ನ ಡೆಮೊ ಮಾದರಿ, ಒಂದು ಬಹಳ ಸಣ್ಣ ಭಾಷಾ ಮಾದರಿ. ನನಗೆ ಕೆಲವು ನೂರು ವಿಷಯಗಳು ಗೊತ್ತು.", "ಲೈಕನ್")},
    "name": {
        "en": (["What is your name?", "What's your name?", "Do you have a name?", "How should I call you?", "Your name?"],
               "My name is Lichen. I am a demo model.", "Lichen"),
        "hi": (["आपका नाम क्या है?", "तुम्हारा नाम क्या है?", "क्या आपका कोई नाम है?", "मैं आपको क्या कहूँ?"],
               "मेरा नाम लाइकेन है। मैं एक डेमो मॉडल हूँ।", "लाइकेन"),
        "kn": (["ನಿಮ್ಮ ಹೆಸರೇನು?", "ನಿನ್ನ ಹೆಸರು ಏನು?", "ನಿಮಗೆ ಹೆಸರು ಇದೆಯೇ?", "ನಿಮ್ಮನ್ನು ಏನೆಂದು ಕರೆಯಲಿ?"],
               "ನನ್ನ ಹೆಸರು ಲೈಕನ್. ನಾನು ಒಂದು ಡೆಮೊ ಮಾದರಿ.", "ಲೈಕನ್")},
    "can": {
        "en": (["What can you do?", "How can you help me?", "What do you know?", "What can I ask you?", "Help"],
               "I can tell you capitals, units, colours, opposites, small sums and simple device facts, in English, Hindi and Kannada.", "capitals"),
        "hi": (["आप क्या कर सकते हैं?", "तुम क्या जानते हो?", "मैं आपसे क्या पूछ सकता हूँ?", "आप मेरी मदद कैसे कर सकते हैं?"],
               "मैं राजधानियाँ, इकाइयाँ, रंग, विलोम शब्द, छोटे जोड़ और उपकरणों की बातें बता सकता हूँ।", "राजधानियाँ"),
        "kn": (["ನೀವು ಏನು ಮಾಡಬಲ್ಲಿರಿ?", "ನಿಮಗೆ ಏನು ಗೊತ್ತು?", "ನಾನು ನಿಮ್ಮನ್ನು ಏನು ಕೇಳಬಹುದು?", "ನೀವು ನನಗೆ ಹೇಗೆ ಸಹಾಯ ಮಾಡಬಹುದು?"],
               "ನಾನು ರಾಜಧಾನಿಗಳು, ಏಕಮಾನಗಳು, ಬಣ್ಣಗಳು, ವಿರುದ್ಧ ಪದಗಳು, ಸಣ್ಣ ಲೆಕ್ಕ ಮತ್ತು ಸಾಧನಗಳ ಬಗ್ಗೆ ಹೇಳಬಲ್ಲೆ.", "ರಾಜಧಾನಿಗಳು")},
    "where": {
        "en": (["Where do you run?", "Do you need the internet?", "Are you in the cloud?", "Where are you running?", "Do you work offline?"],
               "I run on this device itself and need no internet.", "this device"),
        "hi": (["आप कहाँ चलते हैं?", "क्या आपको इंटरनेट चाहिए?", "क्या आप क्लाउड में हैं?", "क्या आप बिना इंटरनेट चलते हैं?"],
               "मैं इसी उपकरण पर चलता हूँ और मुझे इंटरनेट नहीं चाहिए।", "इसी उपकरण"),
        "kn": (["ನೀವು ಎಲ್ಲಿ ನಡೆಯುತ್ತೀರಿ?", "ನಿಮಗೆ ಇಂಟರ್ನೆಟ್ ಬೇಕೇ?", "ನೀವು ಕ್ಲೌಡ್‌ನಲ್ಲಿದ್ದೀರಾ?", "ಇಂಟರ್ನೆಟ್ ಇಲ್ಲದೆ ಕೆಲಸ ಮಾಡುತ್ತೀರಾ?"],
               "ನಾನು ಈ ಸಾಧನದಲ್ಲೇ ನಡೆಯುತ್ತೇನೆ, ನನಗೆ ಇಂಟರ್ನೆಟ್ ಬೇಡ.", "ಈ ಸಾಧನ")},
    "languages": {
        "en": (["Which languages do you speak?", "Do you speak Hindi?", "Do you know Kannada?", "What languages do you know?"],
               "I speak a little English, Hindi and Kannada.", "Kannada"),
        "hi": (["आप कौन सी भाषाएँ बोलते हैं?", "क्या आप हिंदी जानते हैं?", "क्या तुम कन्नड़ बोलते हो?", "आपको कितनी भाषाएँ आती हैं?"],
               "मैं थोड़ी हिंदी, कन्नड़ और अंग्रेज़ी बोलता हूँ।", "हिंदी"),
        "kn": (["ನೀವು ಯಾವ ಭಾಷೆಗಳನ್ನು ಮಾತನಾಡುತ್ತೀರಿ?", "ನಿಮಗೆ ಕನ್ನಡ ಬರುತ್ತದೆಯೇ?", "ನಿಮಗೆ ಹಿಂದಿ ಗೊತ್ತೇ?", "ನಿಮಗೆ ಎಷ್ಟು ಭಾಷೆಗಳು ಗೊತ್ತು?"],
               "ನಾನು ಸ್ವಲ್ಪ ಕನ್ನಡ, ಹಿಂದಿ ಮತ್ತು ಇಂಗ್ಲಿಷ್ ಮಾತನಾಡುತ್ತೇನೆ.", "ಕನ್ನಡ")},
    "wrong": {
        "en": (["Are you always right?", "Can I trust you?", "Do you make mistakes?", "Can you be wrong?"],
               "I make mistakes. Please check important answers.", "mistakes"),
        "hi": (["क्या आप हमेशा सही होते हैं?", "क्या मैं आप पर भरोसा करूँ?", "क्या आप ग़लती करते हैं?"],
               "मुझसे ग़लतियाँ होती हैं। ज़रूरी उत्तर जाँच लें।", "ग़लतियाँ"),
        "kn": (["ನೀವು ಯಾವಾಗಲೂ ಸರಿಯೇ?", "ನಿಮ್ಮನ್ನು ನಂಬಬಹುದೇ?", "ನೀವು ತಪ್ಪು ಮಾಡುತ್ತೀರಾ?"],
               "ನಾನು ತಪ್ಪು ಮಾಡುತ್ತೇನೆ. ಮುಖ್ಯ ಉತ್ತರಗಳನ್ನು ಪರಿಶೀಲಿಸಿ.", "ತಪ್ಪು")},
}

GREETINGS = {
    "hello": {
        "en": (["Hello", "Hello!", "Hi", "Hi there!", "Hey", "Hello there.", "Good day!", "hi"], "Hello! How can I help you?", "Hello"),
        "hi": (["नमस्ते", "नमस्ते!", "नमस्कार", "हैलो", "हाय"], "नमस्ते! मैं आपकी क्या मदद कर सकता हूँ?", "नमस्ते"),
        "kn": (["ನಮಸ್ಕಾರ", "ನಮಸ್ಕಾರ!", "ನಮಸ್ತೆ", "ಹಲೋ", "ಹಾಯ್"], "ನಮಸ್ಕಾರ! ನಾನು ನಿಮಗೆ ಹೇಗೆ ಸಹಾಯ ಮಾಡಲಿ?", "ನಮಸ್ಕಾರ")},
    "how_are_you": {
        "en": (["How are you?", "How are you today?", "How do you do?", "Are you well?", "How's it going?"], "I am fine, thank you. How are you?", "fine"),
        "hi": (["आप कैसे हैं?", "कैसे हो?", "क्या हाल है?", "आज आप कैसे हैं?"], "मैं ठीक हूँ, धन्यवाद। आप कैसे हैं?", "ठीक"),
        "kn": (["ನೀವು ಹೇಗಿದ್ದೀರಿ?", "ಹೇಗಿದ್ದೀಯಾ?", "ಇಂದು ಹೇಗಿದ್ದೀರಿ?", "ಚೆನ್ನಾಗಿದ್ದೀರಾ?"], "ನಾನು ಚೆನ್ನಾಗಿದ್ದೇನೆ, ಧನ್ಯವಾದಗಳು. ನೀವು ಹೇಗಿದ್ದೀರಿ?", "ಚೆನ್ನಾಗಿದ್ದೇನೆ")},
    "thanks": {
        "en": (["Thank you", "Thanks!", "Thank you very much.", "Thanks a lot.", "That helps, thank you."], "You are welcome.", "welcome"),
        "hi": (["धन्यवाद", "शुक्रिया", "बहुत धन्यवाद।", "आपका धन्यवाद।"], "आपका स्वागत है।", "स्वागत"),
        "kn": (["ಧನ್ಯವಾದಗಳು", "ಧನ್ಯವಾದ", "ತುಂಬಾ ಧನ್ಯವಾದಗಳು.", "ನಿಮಗೆ ಧನ್ಯವಾದಗಳು."], "ಸ್ವಾಗತ.", "ಸ್ವಾಗತ")},
    "bye": {
        "en": (["Bye", "Goodbye", "See you later.", "Good night.", "Bye bye!"], "Goodbye! See you soon.", "Goodbye"),
        "hi": (["अलविदा", "फिर मिलेंगे।", "शुभ रात्रि।", "बाय"], "अलविदा! फिर मिलेंगे।", "अलविदा"),
        "kn": (["ವಿದಾಯ", "ಮತ್ತೆ ಸಿಗೋಣ.", "ಶುಭ ರಾತ್ರಿ.", "ಬೈ"], "ವಿದಾಯ! ಮತ್ತೆ ಸಿಗೋಣ.", "ವಿದಾಯ")},
    "morning": {
        "en": (["Good morning", "Good morning!", "Good morning to you."], "Good morning! What would you like to know?", "Good morning"),
        "hi": (["सुप्रभात", "शुभ प्रभात!", "सुप्रभात जी।"], "सुप्रभात! आप क्या जानना चाहते हैं?", "सुप्रभात"),
        "kn": (["ಶುಭೋದಯ", "ಶುಭೋದಯ!", "ಶುಭ ಮುಂಜಾನೆ."], "ಶುಭೋದಯ! ನೀವು ಏನು ತಿಳಿಯಲು ಬಯಸುತ್ತೀರಿ?", "ಶುಭೋದಯ")},
}

# Things outside what it knows. {c} is a country, {p} a made-up place or person, {t} a topic.
UNKNOWN = {
    "en": (["Who is the president of {c}?", "How many people live in {c}?", "What is the weather in {c} today?", "Who is {p}?",
            "What is the capital of {p}?", "Tell me about {t}.", "What do you think about {t}?", "Write a poem about {t}.",
            "What is the price of {t}?", "Who invented {t}?", "What time is it?", "What is the date today?", "What will happen tomorrow?",
            "Who won the match yesterday?", "What is 3817 times 294?", "When was {p} born?", "How far is it to {c}?", "What is in the news about {c}?"],
           "I do not know that. I am a very small model."),
    "hi": (["{c} के राष्ट्रपति कौन हैं?", "{c} में कितने लोग रहते हैं?", "आज {c} में मौसम कैसा है?", "{p} कौन है?", "{p} की राजधानी क्या है?",
            "{t} के बारे में बताओ।", "{t} की क़ीमत क्या है?", "{t} का आविष्कार किसने किया?", "अभी कितने बजे हैं?", "आज कौन सी तारीख़ है?",
            "कल क्या होगा?", "कल मैच कौन जीता?", "{t} पर कविता लिखो।", "{p} का जन्म कब हुआ?"],
           "मुझे यह नहीं पता। मैं एक बहुत छोटा मॉडल हूँ।"),
    "kn": (["{c} ದೇಶದ ಅಧ್ಯಕ್ಷರು ಯಾರು?", "{c} ದೇಶದಲ್ಲಿ ಎಷ್ಟು ಜನರಿದ್ದಾರೆ?", "ಇಂದು {c} ದೇಶದಲ್ಲಿ ಹವಾಮಾನ ಹೇಗಿದೆ?", "{p} ಯಾರು?", "{p} ದೇಶದ ರಾಜಧಾನಿ ಯಾವುದು?",
            "{t} ಕುರಿತು ತಿಳಿಸಿ.", "{t} ಬೆಲೆ ಎಷ್ಟು?", "{t} ಕಂಡುಹಿಡಿದವರು ಯಾರು?", "ಈಗ ಸಮಯ ಎಷ್ಟು?", "ಇಂದಿನ ದಿನಾಂಕ ಏನು?", "ನಾಳೆ ಏನಾಗುತ್ತದೆ?",
            "ನಿನ್ನೆ ಪಂದ್ಯ ಯಾರು ಗೆದ್ದರು?", "{t} ಬಗ್ಗೆ ಕವಿತೆ ಬರೆಯಿರಿ.", "{p} ಯಾವಾಗ ಹುಟ್ಟಿದರು?"],
           "ನನಗೆ ಅದು ಗೊತ್ತಿಲ್ಲ. ನಾನು ಬಹಳ ಸಣ್ಣ ಮಾದರಿ."),
}
UNKNOWN_KEY = {"en": "I do not know", "hi": "नहीं पता", "kn": "ಗೊತ್ತಿಲ್ಲ"}

TOPICS = {
    "en": "football, gold, cricket, the telephone, music, the stars, history, politics, love, the ocean, films, medicine, dinosaurs, "
          "bicycles, chess, tea, aeroplanes, poetry, volcanoes, money, dreams, painting, the radio, bread, philosophy".split(", "),
    "hi": "क्रिकेट, सोना, टेलीफ़ोन, संगीत, तारे, इतिहास, राजनीति, प्यार, फ़िल्में, दवा, साइकिल, शतरंज, चाय, हवाई जहाज़, कविता, पैसा, सपने".split(", "),
    "kn": "ಕ್ರಿಕೆಟ್, ಚಿನ್ನ, ದೂರವಾಣಿ, ಸಂಗೀತ, ನಕ್ಷತ್ರಗಳು, ಇತಿಹಾಸ, ರಾಜಕೀಯ, ಪ್ರೀತಿ, ಚಲನಚಿತ್ರ, ಔಷಧ, ಸೈಕಲ್, ಚದುರಂಗ, ಚಹಾ, ವಿಮಾನ, ಕವಿತೆ, ಹಣ, ಕನಸು".split(", "),
}
SYLLABLES = {
    "en": ("ba do ki lu ma no ra si tu ve za gor fen mil dar pol wen tas bri ko".split(), ""),
    "hi": ("बा दो की लू मा नो रा सी टू वे ज़ा गो फे मि दा पो तन सा".split(), ""),
    "kn": ("ಬಾ ದೋ ಕೀ ಲೂ ಮಾ ನೋ ರಾ ಸೀ ಟೂ ವೇ ಜಾ ಗೋ ಫೆ ಮಿ ದಾ ಪೋ ತನ ಸಾ".split(), ""),
}

# A robot described in the prompt: (sentence, question, answer). The value v is drawn anew each time, so nothing is learnt
# by heart but where to look. No sentence here holds a fact of a particular robot.
ROBOT_CONTEXT = {
    "en": {
        "name": ("This robot is called {v}.", ["What is this robot called?", "What is the robot's name?", "What's the name of this robot?"],
                 "This robot is called {v}."),
        "battery": ("Its battery lasts {n} hours.", ["How long does the battery last?", "How many hours does the battery last?"],
                    "The battery lasts {n} hours."),
        "wheels": ("It has {n} wheels.", ["How many wheels does it have?", "How many wheels does the robot have?"], "It has {n} wheels."),
        "colour": ("It is painted {k}.", ["What colour is the robot?", "Which colour is it painted?"], "The robot is {k}."),
        "room": ("It works in the {r}.", ["Where does the robot work?", "In which place does it work?"], "It works in the {r}."),
        "gripper": ("Its gripper can lift {n} kilograms.", ["How much can the gripper lift?", "How many kilograms can it lift?"],
                    "The gripper can lift {n} kilograms."),
        "motors": ("It has {n} motors.", ["How many motors does it have?", "How many motors does the robot have?"], "It has {n} motors.")},
    "hi": {
        "name": ("इस रोबोट का नाम {v} है।", ["इस रोबोट का नाम क्या है?", "रोबोट का नाम बताओ।"], "इस रोबोट का नाम {v} है।"),
        "battery": ("इसकी बैटरी {n} घंटे चलती है।", ["बैटरी कितने घंटे चलती है?", "इसकी बैटरी कितनी देर चलती है?"], "बैटरी {n} घंटे चलती है।"),
        "wheels": ("इसके {n} पहिए हैं।", ["इसके कितने पहिए हैं?", "रोबोट के कितने पहिए हैं?"], "इसके {n} पहिए हैं।"),
        "colour": ("इसका रंग {k} है।", ["रोबोट का रंग क्या है?", "इसका रंग कौन सा है?"], "इसका रंग {k} है।"),
        "room": ("यह {r} में काम करता है।", ["रोबोट कहाँ काम करता है?", "यह कहाँ काम करता है?"], "यह {r} में काम करता है।"),
        "motors": ("इसमें {n} मोटर हैं।", ["इसमें कितनी मोटर हैं?", "रोबोट में कितनी मोटर हैं?"], "इसमें {n} मोटर हैं।")},
    "kn": {
        "name": ("ಈ ರೋಬೋಟ್ ಹೆಸರು {v}.", ["ಈ ರೋಬೋಟ್ ಹೆಸರೇನು?", "ರೋಬೋಟ್ ಹೆಸರು ಹೇಳಿ."], "ಈ ರೋಬೋಟ್ ಹೆಸರು {v}."),
        "battery": ("ಇದರ ಬ್ಯಾಟರಿ {n} ಗಂಟೆ ಬರುತ್ತದೆ.", ["ಬ್ಯಾಟರಿ ಎಷ್ಟು ಗಂಟೆ ಬರುತ್ತದೆ?", "ಇದರ ಬ್ಯಾಟರಿ ಎಷ್ಟು ಹೊತ್ತು ಬರುತ್ತದೆ?"], "ಬ್ಯಾಟರಿ {n} ಗಂಟೆ ಬರುತ್ತದೆ."),
        "wheels": ("ಇದಕ್ಕೆ {n} ಚಕ್ರಗಳಿವೆ.", ["ಇದಕ್ಕೆ ಎಷ್ಟು ಚಕ್ರಗಳಿವೆ?", "ರೋಬೋಟ್‌ಗೆ ಎಷ್ಟು ಚಕ್ರಗಳಿವೆ?"], "ಇದಕ್ಕೆ {n} ಚಕ್ರಗಳಿವೆ."),
        "colour": ("ಇದರ ಬಣ್ಣ {k}.", ["ರೋಬೋಟ್ ಬಣ್ಣ ಯಾವುದು?", "ಇದರ ಬಣ್ಣ ಏನು?"], "ಇದರ ಬಣ್ಣ {k}."),
        "room": ("ಇದು {r} ಜಾಗದಲ್ಲಿ ಕೆಲಸ ಮಾಡುತ್ತದೆ.", ["ರೋಬೋಟ್ ಎಲ್ಲಿ ಕೆಲಸ ಮಾಡುತ್ತದೆ?", "ಇದು ಎಲ್ಲಿ ಕೆಲಸ ಮಾಡುತ್ತದೆ?"], "ಇದು {r} ಜಾಗದಲ್ಲಿ ಕೆಲಸ ಮಾಡುತ್ತದೆ."),
        "motors": ("ಇದಕ್ಕೆ {n} ಮೋಟಾರ್‌ಗಳಿವೆ.", ["ಇದಕ್ಕೆ ಎಷ್ಟು ಮೋಟಾರ್‌ಗಳಿವೆ?", "ರೋಬೋಟ್‌ಗೆ ಎಷ್ಟು ಮೋಟಾರ್‌ಗಳಿವೆ?"], "ಇದಕ್ಕೆ {n} ಮೋಟಾರ್‌ಗಳಿವೆ.")},
}
ROOMS = {
    "en": "kitchen, garden, workshop, warehouse, school, hospital, library, farm, office, laboratory, station, field".split(", "),
    "hi": "रसोई, बगीचे, कार्यशाला, गोदाम, विद्यालय, अस्पताल, पुस्तकालय, खेत, दफ़्तर, प्रयोगशाला".split(", "),
    "kn": "ಅಡುಗೆಮನೆ, ತೋಟ, ಕಾರ್ಯಾಗಾರ, ಗೋದಾಮು, ಶಾಲೆ, ಆಸ್ಪತ್ರೆ, ಗ್ರಂಥಾಲಯ, ಹೊಲ, ಕಚೇರಿ, ಪ್ರಯೋಗಾಲಯ".split(", "),
}
STORY = {
    "en": ["The robot {v} rolled into the {r}.", "Its battery was at {m} percent.", "The camera saw a {k} box near the wall.",
           "The left motor was warm, and the right motor was cool.", "It stopped, turned {m} degrees, and moved on.",
           "{v} lifted the {k} cup with its gripper.", "The distance sensor showed {m} centimetres.", "Then it drove back to the charger in the {r}.",
           "A light blinked {n} times, and the fan began to turn.", "In the {r} it met {n} people and greeted them.",
           "The wheels were dirty, so {v} drove slowly.", "It waited {n} minutes for the {k} light."],
    "hi": ["रोबोट {v} {r} में आया।", "उसकी बैटरी {m} प्रतिशत थी।", "कैमरे ने दीवार के पास एक डिब्बा देखा।", "बायाँ मोटर गर्म था और दायाँ मोटर ठंडा था।",
           "वह रुका, {m} डिग्री मुड़ा और आगे बढ़ा।", "{v} ने ग्रिपर से कप उठाया।", "दूरी सेंसर ने {m} सेंटीमीटर दिखाया।", "फिर वह चार्जर के पास लौट आया।",
           "बत्ती {n} बार जली और पंखा चलने लगा।", "{r} में उसे {n} लोग मिले।"],
    "kn": ["ರೋಬೋಟ್ {v} {r} ಕಡೆಗೆ ಬಂದಿತು.", "ಅದರ ಬ್ಯಾಟರಿ {m} ಪ್ರತಿಶತ ಇತ್ತು.", "ಕ್ಯಾಮೆರಾ ಗೋಡೆಯ ಹತ್ತಿರ ಒಂದು ಪೆಟ್ಟಿಗೆ ನೋಡಿತು.", "ಎಡ ಮೋಟಾರ್ ಬಿಸಿಯಾಗಿತ್ತು, ಬಲ ಮೋಟಾರ್ ತಂಪಾಗಿತ್ತು.",
           "ಅದು ನಿಂತು, {m} ಡಿಗ್ರಿ ತಿರುಗಿ ಮುಂದೆ ಹೋಯಿತು.", "{v} ಗ್ರಿಪ್ಪರ್‌ನಿಂದ ಲೋಟ ಎತ್ತಿತು.", "ದೂರ ಸೆನ್ಸರ್ {m} ಸೆಂಟಿಮೀಟರ್ ತೋರಿಸಿತು.", "ನಂತರ ಅದು ಚಾರ್ಜರ್ ಹತ್ತಿರ ಮರಳಿತು.",
           "ದೀಪ {n} ಬಾರಿ ಮಿನುಗಿ ಫ್ಯಾನ್ ತಿರುಗಿತು.", "{r} ಬಳಿ ಅದು {n} ಜನರನ್ನು ಕಂಡಿತು."],
}
