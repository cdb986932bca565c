"""Device words with their definitions, and small how-to questions. General knowledge only: nothing about one robot."""

from facts_places import LANGUAGES
from facts_world import rows

# term | definition, for en, hi, kn: six cells. The term stands alone in questions, so it needs no inflection.
DEFINITIONS = """
a Jetson Nano | a small computer board with a GPU for robots and cameras | जेटसन नैनो | रोबोट और कैमरों के लिए GPU वाला एक छोटा कंप्यूटर बोर्ड | ಜೆಟ್ಸನ್ ನ್ಯಾನೋ | ರೋಬೋಟ್ ಮತ್ತು ಕ್ಯಾಮೆರಾಗಳಿಗಾಗಿ GPU ಇರುವ ಸಣ್ಣ ಕಂಪ್ಯೂಟರ್ ಬೋರ್ಡ್
a GPU | a processor that does many small calculations at the same time | GPU | एक प्रोसेसर जो एक साथ बहुत सी छोटी गणनाएँ करता है | GPU | ಒಂದೇ ಸಮಯದಲ್ಲಿ ಅನೇಕ ಸಣ್ಣ ಲೆಕ್ಕಗಳನ್ನು ಮಾಡುವ ಪ್ರೊಸೆಸರ್
a CPU | the main processor that runs the programs of a computer | CPU | मुख्य प्रोसेसर जो कंप्यूटर के प्रोग्राम चलाता है | CPU | ಕಂಪ್ಯೂಟರ್‌ನ ಪ್ರೋಗ್ರಾಂಗಳನ್ನು ನಡೆಸುವ ಮುಖ್ಯ ಪ್ರೊಸೆಸರ್
RAM | fast memory that forgets everything when the power goes off | RAM | तेज़ मेमोरी जो बिजली जाने पर सब भूल जाती है | RAM | ವಿದ್ಯುತ್ ಹೋದಾಗ ಎಲ್ಲವನ್ನೂ ಮರೆಯುವ ವೇಗದ ಮೆಮೊರಿ
UART | a serial port that sends data one bit at a time over two wires | UART | एक सीरियल पोर्ट जो दो तारों पर एक-एक बिट भेजता है | UART | ಎರಡು ತಂತಿಗಳಲ್ಲಿ ಒಂದೊಂದೇ ಬಿಟ್ ಕಳುಹಿಸುವ ಸೀರಿಯಲ್ ಪೋರ್ಟ್
USB | a common plug that carries data and power between devices | USB | एक आम प्लग जो उपकरणों के बीच डेटा और बिजली ले जाता है | USB | ಸಾಧನಗಳ ನಡುವೆ ಡೇಟಾ ಮತ್ತು ವಿದ್ಯುತ್ ಸಾಗಿಸುವ ಸಾಮಾನ್ಯ ಪ್ಲಗ್
GPIO | a set of pins that a program can switch on and off or read | GPIO | पिन जिन्हें प्रोग्राम चालू, बंद या पढ़ सकता है | GPIO | ಪ್ರೋಗ್ರಾಂ ಆನ್, ಆಫ್ ಮಾಡಬಹುದಾದ ಅಥವಾ ಓದಬಹುದಾದ ಪಿನ್‌ಗಳು
I2C | a bus with two wires that connects chips and sensors | I2C | दो तारों की बस जो चिप और सेंसर जोड़ती है | I2C | ಚಿಪ್ ಮತ್ತು ಸೆನ್ಸರ್‌ಗಳನ್ನು ಜೋಡಿಸುವ ಎರಡು ತಂತಿಗಳ ಬಸ್
PWM | a way to control power by switching it on and off very fast | PWM | बिजली को बहुत तेज़ी से चालू और बंद करके नियंत्रित करने का तरीका | PWM | ವಿದ್ಯುತ್ತನ್ನು ವೇಗವಾಗಿ ಆನ್ ಆಫ್ ಮಾಡಿ ನಿಯಂತ್ರಿಸುವ ವಿಧಾನ
a sensor | a part that measures something, such as heat or distance | सेंसर | एक पुर्ज़ा जो गर्मी या दूरी जैसी चीज़ नापता है | ಸೆನ್ಸರ್ | ಶಾಖ ಅಥವಾ ದೂರದಂತಹದನ್ನು ಅಳೆಯುವ ಭಾಗ
a motor | a machine that turns electric power into movement | मोटर | एक मशीन जो बिजली को गति में बदलती है | ಮೋಟಾರ್ | ವಿದ್ಯುತ್ತನ್ನು ಚಲನೆಯಾಗಿ ಬದಲಿಸುವ ಯಂತ್ರ
a servo | a motor that turns to an exact angle and holds it | सर्वो | एक मोटर जो सही कोण तक घूमती है और वहीं रुकती है | ಸರ್ವೋ | ನಿಖರ ಕೋನಕ್ಕೆ ತಿರುಗಿ ಅಲ್ಲೇ ನಿಲ್ಲುವ ಮೋಟಾರ್
an encoder | a sensor that counts how far a wheel has turned | एनकोडर | एक सेंसर जो गिनता है कि पहिया कितना घूमा | ಎನ್‌ಕೋಡರ್ | ಚಕ್ರ ಎಷ್ಟು ತಿರುಗಿದೆ ಎಂದು ಎಣಿಸುವ ಸೆನ್ಸರ್
a battery | a store of electric energy that can be carried | बैटरी | बिजली का भंडार जिसे साथ ले जा सकते हैं | ಬ್ಯಾಟರಿ | ಜೊತೆಗೆ ಒಯ್ಯಬಹುದಾದ ವಿದ್ಯುತ್ ಸಂಗ್ರಹ
a gripper | the hand of a robot, which holds and lifts things | ग्रिपर | रोबोट का हाथ, जो चीज़ें पकड़ता और उठाता है | ಗ್ರಿಪ್ಪರ್ | ವಸ್ತುಗಳನ್ನು ಹಿಡಿದು ಎತ್ತುವ ರೋಬೋಟ್‌ನ ಕೈ
a robot | a machine that senses the world and moves by itself | रोबोट | एक मशीन जो दुनिया को महसूस करती है और ख़ुद चलती है | ರೋಬೋಟ್ | ಪ್ರಪಂಚವನ್ನು ಗ್ರಹಿಸಿ ತಾನೇ ಚಲಿಸುವ ಯಂತ್ರ
a camera | a sensor that takes pictures with light | कैमरा | एक सेंसर जो प्रकाश से चित्र लेता है | ಕ್ಯಾಮೆರಾ | ಬೆಳಕಿನಿಂದ ಚಿತ್ರ ತೆಗೆಯುವ ಸೆನ್ಸರ್
a lidar | a sensor that measures distance with laser light | लिडार | एक सेंसर जो लेज़र से दूरी नापता है | ಲಿಡಾರ್ | ಲೇಸರ್ ಬೆಳಕಿನಿಂದ ದೂರ ಅಳೆಯುವ ಸೆನ್ಸರ್
an ultrasonic sensor | a sensor that measures distance with sound | अल्ट्रासोनिक सेंसर | एक सेंसर जो आवाज़ से दूरी नापता है | ಅಲ್ಟ್ರಾಸೋನಿಕ್ ಸೆನ್ಸರ್ | ಶಬ್ದದಿಂದ ದೂರ ಅಳೆಯುವ ಸೆನ್ಸರ್
an LED | a small lamp that needs very little power | LED | एक छोटी बत्ती जिसे बहुत कम बिजली चाहिए | LED | ಬಹಳ ಕಡಿಮೆ ವಿದ್ಯುತ್ ಬೇಕಾದ ಸಣ್ಣ ದೀಪ
a fan | a part that blows air to keep the board cool | पंखा | एक पुर्ज़ा जो हवा से बोर्ड को ठंडा रखता है | ಫ್ಯಾನ್ | ಗಾಳಿ ಬೀಸಿ ಬೋರ್ಡ್ ತಂಪಾಗಿಡುವ ಭಾಗ
a heat sink | a piece of metal that carries heat away from a chip | हीट सिंक | धातु का टुकड़ा जो चिप से गर्मी दूर ले जाता है | ಹೀಟ್ ಸಿಂಕ್ | ಚಿಪ್‌ನಿಂದ ಶಾಖ ದೂರ ಸಾಗಿಸುವ ಲೋಹದ ತುಂಡು
a resistor | a part that limits electric current | प्रतिरोधक | एक पुर्ज़ा जो विद्युत धारा को कम करता है | ರೆಸಿಸ್ಟರ್ | ವಿದ್ಯುತ್ ಪ್ರವಾಹವನ್ನು ಮಿತಿಗೊಳಿಸುವ ಭಾಗ
Linux | an open operating system that runs on many computers | लिनक्स | एक मुक्त ऑपरेटिंग सिस्टम जो बहुत से कंप्यूटरों पर चलता है | ಲಿನಕ್ಸ್ | ಅನೇಕ ಕಂಪ್ಯೂಟರ್‌ಗಳಲ್ಲಿ ನಡೆಯುವ ಮುಕ್ತ ಆಪರೇಟಿಂಗ್ ಸಿಸ್ಟಮ್
SSH | a safe way to use another computer over the network | SSH | नेटवर्क से दूसरे कंप्यूटर को चलाने का सुरक्षित तरीका | SSH | ನೆಟ್‌ವರ್ಕ್ ಮೂಲಕ ಬೇರೆ ಕಂಪ್ಯೂಟರ್ ಬಳಸುವ ಸುರಕ್ಷಿತ ವಿಧಾನ
Wi-Fi | a radio network for computers and phones | वाई-फ़ाई | कंप्यूटर और फ़ोन के लिए रेडियो नेटवर्क | ವೈ-ಫೈ | ಕಂಪ್ಯೂಟರ್ ಮತ್ತು ಫೋನ್‌ಗಳ ರೇಡಿಯೋ ನೆಟ್‌ವರ್ಕ್
a language model | a program that predicts the next word of a text | भाषा मॉडल | एक प्रोग्राम जो पाठ के अगले शब्द का अनुमान लगाता है | ಭಾಷಾ ಮಾದರಿ | ಪಠ್ಯದ ಮುಂದಿನ ಪದವನ್ನು ಊಹಿಸುವ ಪ್ರೋಗ್ರಾಂ
a token | a small piece of text that a language model reads | टोकन | पाठ का छोटा टुकड़ा जिसे भाषा मॉडल पढ़ता है | ಟೋಕನ್ | ಭಾಷಾ ಮಾದರಿ ಓದುವ ಪಠ್ಯದ ಸಣ್ಣ ತುಂಡು
an adapter | a small set of weights that teaches a frozen model something new | अडैप्टर | छोटे भार जो स्थिर मॉडल को कुछ नया सिखाते हैं | ಅಡಾಪ್ಟರ್ | ಸ್ಥಿರ ಮಾದರಿಗೆ ಹೊಸದನ್ನು ಕಲಿಸುವ ಸಣ್ಣ ತೂಕಗಳು
quantization | a way to store weights with fewer bits | क्वांटाइज़ेशन | भार को कम बिट में रखने का तरीका | ಕ್ವಾಂಟೈಸೇಶನ್ | ತೂಕಗಳನ್ನು ಕಡಿಮೆ ಬಿಟ್‌ಗಳಲ್ಲಿ ಇಡುವ ವಿಧಾನ
an SD card | a small card that stores files | SD कार्ड | एक छोटा कार्ड जो फ़ाइलें रखता है | SD ಕಾರ್ಡ್ | ಫೈಲ್‌ಗಳನ್ನು ಇಡುವ ಸಣ್ಣ ಕಾರ್ಡ್
a lichen | a fungus and an alga that live together on bare rock | लाइकेन | एक कवक और एक शैवाल जो चट्टान पर साथ रहते हैं | ಕಲ್ಲುಹೂವು | ಬಂಡೆಯ ಮೇಲೆ ಜೊತೆಯಾಗಿ ಬದುಕುವ ಶಿಲೀಂಧ್ರ ಮತ್ತು ಪಾಚಿ
"""

DEFINE = {
    "en": {"q": ["What is {x}?", "Explain {x}.", "What does {x} mean?", "Tell me what {x} is.", "Can you explain {x}?",
                 "What's {x}?", "Describe {x} in one sentence."],
           "a": ["{X} is {y}."], "s": ["{X} is {y}."]},
    "hi": {"q": ["{x} क्या है?", "{x} क्या होता है?", "{x} का मतलब बताओ।", "{x} के बारे में बताइए।", "{x} किसे कहते हैं?"],
           "a": ["{x}: {y}।"], "s": ["{x}: {y}।"]},
    "kn": {"q": ["{x} ಎಂದರೇನು?", "{x} ಅಂದರೆ ಏನು?", "{x} ಬಗ್ಗೆ ಹೇಳಿ.", "{x} ಏನು ಎಂದು ವಿವರಿಸಿ."],
           "a": ["{x} ಎಂದರೆ {y}."], "s": ["{x} ಎಂದರೆ {y}."]},
}

# Each intent: per language several questions and one answer; `key` is what a right answer must contain.
HOW_TO = {
    "reset": {
        "en": (["How do I reset the device?", "How can I reset the board?", "My board hangs. How do I restart it?", "What should I do to reset it?",
                "Reset the device, how?"],
               "Hold the reset button for ten seconds and wait for the green light.", "ten seconds"),
        "hi": (["उपकरण को रीसेट कैसे करें?", "बोर्ड को फिर से चालू कैसे करूँ?", "रीसेट करने के लिए क्या करना है?", "डिवाइस अटक गया है, क्या करूँ?"],
               "रीसेट बटन को दस सेकंड तक दबाए रखें और हरी बत्ती का इंतज़ार करें।", "दस सेकंड"),
        "kn": (["ಸಾಧನವನ್ನು ಮರುಹೊಂದಿಸುವುದು ಹೇಗೆ?", "ಬೋರ್ಡ್ ಮರುಪ್ರಾರಂಭಿಸುವುದು ಹೇಗೆ?", "ರೀಸೆಟ್ ಮಾಡಲು ಏನು ಮಾಡಬೇಕು?", "ಸಾಧನ ನಿಂತುಹೋಗಿದೆ, ಏನು ಮಾಡಲಿ?"],
               "ರೀಸೆಟ್ ಗುಂಡಿಯನ್ನು ಹತ್ತು ಸೆಕೆಂಡು ಒತ್ತಿ ಹಿಡಿದು ಹಸಿರು ದೀಪಕ್ಕಾಗಿ ಕಾಯಿರಿ.", "ಹತ್ತು ಸೆಕೆಂಡು")},
    "hot": {
        "en": (["The board is too hot. What should I do?", "What do I do when the device gets hot?", "How can I cool the board?",
                "My device overheats, help me.", "The chip is very hot, what now?"],
               "Check that the fan turns and lower the power mode.", "fan"),
        "hi": (["बोर्ड बहुत गर्म है। क्या करूँ?", "उपकरण गर्म हो जाए तो क्या करें?", "बोर्ड को ठंडा कैसे करें?", "चिप बहुत गर्म हो रही है।"],
               "देखें कि पंखा चल रहा है और कम बिजली वाला मोड चुनें।", "पंखा"),
        "kn": (["ಬೋರ್ಡ್ ತುಂಬಾ ಬಿಸಿಯಾಗಿದೆ. ಏನು ಮಾಡಲಿ?", "ಸಾಧನ ಬಿಸಿಯಾದರೆ ಏನು ಮಾಡಬೇಕು?", "ಬೋರ್ಡ್ ತಂಪಾಗಿಸುವುದು ಹೇಗೆ?", "ಚಿಪ್ ತುಂಬಾ ಬಿಸಿಯಾಗುತ್ತಿದೆ."],
               "ಫ್ಯಾನ್ ತಿರುಗುತ್ತಿದೆಯೇ ನೋಡಿ ಮತ್ತು ಕಡಿಮೆ ವಿದ್ಯುತ್ ಮೋಡ್ ಆರಿಸಿ.", "ಫ್ಯಾನ್")},
    "shutdown": {
        "en": (["How do I switch the board off?", "How do I shut down safely?", "How can I turn off the device?", "May I just pull the plug?"],
               "Run the shutdown command and wait until the light goes off.", "shutdown"),
        "hi": (["बोर्ड को बंद कैसे करें?", "उपकरण को सुरक्षित रूप से बंद कैसे करूँ?", "डिवाइस कैसे बंद होता है?", "क्या मैं सीधे तार निकाल दूँ?"],
               "शटडाउन कमांड चलाएँ और बत्ती बुझने तक रुकें।", "शटडाउन"),
        "kn": (["ಬೋರ್ಡ್ ಆಫ್ ಮಾಡುವುದು ಹೇಗೆ?", "ಸಾಧನವನ್ನು ಸುರಕ್ಷಿತವಾಗಿ ಮುಚ್ಚುವುದು ಹೇಗೆ?", "ಸಾಧನ ಹೇಗೆ ಆಫ್ ಆಗುತ್ತದೆ?", "ನೇರವಾಗಿ ತಂತಿ ತೆಗೆಯಬಹುದೇ?"],
               "ಶಟ್‌ಡೌನ್ ಕಮಾಂಡ್ ನಡೆಸಿ ದೀಪ ಆರುವವರೆಗೆ ಕಾಯಿರಿ.", "ಶಟ್‌ಡೌನ್")},
    "console": {
        "en": (["How do I connect a serial console?", "How can I talk to the board over a serial cable?", "Which speed does the serial console use?",
                "How do I open the UART console?"],
               "Connect the UART pins and open the port at 115200 baud.", "115200"),
        "hi": (["सीरियल कंसोल कैसे जोड़ें?", "सीरियल तार से बोर्ड से कैसे बात करूँ?", "सीरियल कंसोल की गति क्या है?", "UART कंसोल कैसे खोलें?"],
               "UART पिन जोड़ें और पोर्ट को 115200 बॉड पर खोलें।", "115200"),
        "kn": (["ಸೀರಿಯಲ್ ಕನ್ಸೋಲ್ ಜೋಡಿಸುವುದು ಹೇಗೆ?", "ಸೀರಿಯಲ್ ತಂತಿಯಲ್ಲಿ ಬೋರ್ಡ್ ಜೊತೆ ಹೇಗೆ ಮಾತನಾಡಲಿ?", "ಸೀರಿಯಲ್ ಕನ್ಸೋಲ್ ವೇಗ ಎಷ್ಟು?", "UART ಕನ್ಸೋಲ್ ತೆರೆಯುವುದು ಹೇಗೆ?"],
               "UART ಪಿನ್‌ಗಳನ್ನು ಜೋಡಿಸಿ 115200 ಬಾಡ್‌ನಲ್ಲಿ ಪೋರ್ಟ್ ತೆರೆಯಿರಿ.", "115200")},
    "low_battery": {
        "en": (["The battery is low. What should I do?", "What do I do when the battery is empty?", "How do I charge the robot?", "My robot has no power left."],
               "Stop the motors and connect the charger.", "charger"),
        "hi": (["बैटरी कम है। क्या करूँ?", "बैटरी ख़त्म हो जाए तो क्या करें?", "रोबोट को चार्ज कैसे करें?", "मेरे रोबोट की बैटरी ख़त्म है।"],
               "मोटर रोकें और चार्जर लगाएँ।", "चार्जर"),
        "kn": (["ಬ್ಯಾಟರಿ ಕಡಿಮೆಯಾಗಿದೆ. ಏನು ಮಾಡಲಿ?", "ಬ್ಯಾಟರಿ ಖಾಲಿಯಾದರೆ ಏನು ಮಾಡಬೇಕು?", "ರೋಬೋಟ್ ಚಾರ್ಜ್ ಮಾಡುವುದು ಹೇಗೆ?", "ನನ್ನ ರೋಬೋಟ್ ಬ್ಯಾಟರಿ ಮುಗಿದಿದೆ."],
               "ಮೋಟಾರ್‌ಗಳನ್ನು ನಿಲ್ಲಿಸಿ ಚಾರ್ಜರ್ ಜೋಡಿಸಿ.", "ಚಾರ್ಜರ್")},
    "obstacle": {
        "en": (["What should a robot do at an obstacle?", "There is a wall ahead. What should the robot do?", "How does a robot avoid a wall?",
                "What does a robot do when something is in the way?"],
               "It should stop, look around, and turn to a free side.", "stop"),
        "hi": (["रुकावट आने पर रोबोट क्या करे?", "आगे दीवार है। रोबोट क्या करे?", "रोबोट दीवार से कैसे बचता है?", "रास्ते में कुछ हो तो रोबोट क्या करे?"],
               "उसे रुकना, चारों ओर देखना और ख़ाली ओर मुड़ना चाहिए।", "रुकना"),
        "kn": (["ಅಡೆತಡೆ ಬಂದಾಗ ರೋಬೋಟ್ ಏನು ಮಾಡಬೇಕು?", "ಮುಂದೆ ಗೋಡೆ ಇದೆ. ರೋಬೋಟ್ ಏನು ಮಾಡಬೇಕು?", "ರೋಬೋಟ್ ಗೋಡೆಯಿಂದ ಹೇಗೆ ತಪ್ಪಿಸಿಕೊಳ್ಳುತ್ತದೆ?", "ದಾರಿಯಲ್ಲಿ ಏನಾದರೂ ಇದ್ದರೆ ರೋಬೋಟ್ ಏನು ಮಾಡಬೇಕು?"],
               "ಅದು ನಿಂತು, ಸುತ್ತ ನೋಡಿ, ಖಾಲಿ ಬದಿಗೆ ತಿರುಗಬೇಕು.", "ನಿಂತು")},
    "boiling": {
        "en": (["At what temperature does water boil?", "When does water boil?", "What is the boiling point of water?", "How hot is boiling water?"],
               "Water boils at 100 degrees Celsius.", "100"),
        "hi": (["पानी किस तापमान पर उबलता है?", "पानी कब उबलता है?", "पानी का क्वथनांक क्या है?", "उबलता पानी कितना गर्म होता है?"],
               "पानी 100 डिग्री सेल्सियस पर उबलता है।", "100"),
        "kn": (["ನೀರು ಯಾವ ತಾಪಮಾನದಲ್ಲಿ ಕುದಿಯುತ್ತದೆ?", "ನೀರು ಯಾವಾಗ ಕುದಿಯುತ್ತದೆ?", "ನೀರಿನ ಕುದಿಯುವ ಬಿಂದು ಎಷ್ಟು?", "ಕುದಿಯುವ ನೀರು ಎಷ್ಟು ಬಿಸಿ?"],
               "ನೀರು 100 ಡಿಗ್ರಿ ಸೆಲ್ಸಿಯಸ್‌ನಲ್ಲಿ ಕುದಿಯುತ್ತದೆ.", "100")},
    "freezing": {
        "en": (["At what temperature does water freeze?", "When does water freeze?", "What is the freezing point of water?", "When does water become ice?"],
               "Water freezes at 0 degrees Celsius.", "0"),
        "hi": (["पानी किस तापमान पर जमता है?", "पानी कब जमता है?", "पानी का हिमांक क्या है?", "पानी बर्फ़ कब बनता है?"],
               "पानी 0 डिग्री सेल्सियस पर जमता है।", "0"),
        "kn": (["ನೀರು ಯಾವ ತಾಪಮಾನದಲ್ಲಿ ಹೆಪ್ಪುಗಟ್ಟುತ್ತದೆ?", "ನೀರು ಯಾವಾಗ ಹೆಪ್ಪುಗಟ್ಟುತ್ತದೆ?", "ನೀರಿನ ಘನೀಕರಣ ಬಿಂದು ಎಷ್ಟು?", "ನೀರು ಯಾವಾಗ ಮಂಜುಗಡ್ಡೆಯಾಗುತ್ತದೆ?"],
               "ನೀರು 0 ಡಿಗ್ರಿ ಸೆಲ್ಸಿಯಸ್‌ನಲ್ಲಿ ಹೆಪ್ಪುಗಟ್ಟುತ್ತದೆ.", "0")},
}


def device_facts():
    for cells in rows(DEFINITIONS):
        yield "define", cells[0], {l: {"x": cells[2 * i], "y": cells[2 * i + 1]} for i, l in enumerate(LANGUAGES)}
