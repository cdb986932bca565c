"""Countries and Indian states with their capitals. One row: English, Hindi and Kannada names, then the continent."""

# name and capital in en | hi | kn, continent key
COUNTRIES = """
India, New Delhi | भारत, नई दिल्ली | ಭಾರತ, ನವದೆಹಲಿ | asia
France, Paris | फ़्रांस, पेरिस | ಫ್ರಾನ್ಸ್, ಪ್ಯಾರಿಸ್ | europe
Germany, Berlin | जर्मनी, बर्लिन | ಜರ್ಮನಿ, ಬರ್ಲಿನ್ | europe
Italy, Rome | इटली, रोम | ಇಟಲಿ, ರೋಮ್ | europe
Spain, Madrid | स्पेन, मैड्रिड | ಸ್ಪೇನ್, ಮ್ಯಾಡ್ರಿಡ್ | europe
Portugal, Lisbon | पुर्तगाल, लिस्बन | ಪೋರ್ಚುಗಲ್, ಲಿಸ್ಬನ್ | europe
Greece, Athens | यूनान, एथेंस | ಗ್ರೀಸ್, ಅಥೆನ್ಸ್ | europe
Poland, Warsaw | पोलैंड, वारसॉ | ಪೋಲೆಂಡ್, ವಾರ್ಸಾ | europe
Austria, Vienna | ऑस्ट्रिया, वियना | ಆಸ್ಟ್ರಿಯಾ, ವಿಯೆನ್ನಾ | europe
Hungary, Budapest | हंगरी, बुडापेस्ट | ಹಂಗೇರಿ, ಬುಡಾಪೆಸ್ಟ್ | europe
Norway, Oslo | नॉर्वे, ओस्लो | ನಾರ್ವೆ, ಓಸ್ಲೋ | europe
Sweden, Stockholm | स्वीडन, स्टॉकहोम | ಸ್ವೀಡನ್, ಸ್ಟಾಕ್‌ಹೋಮ್ | europe
Finland, Helsinki | फ़िनलैंड, हेलसिंकी | ಫಿನ್‌ಲ್ಯಾಂಡ್, ಹೆಲ್ಸಿಂಕಿ | europe
Denmark, Copenhagen | डेनमार्क, कोपेनहेगन | ಡೆನ್ಮಾರ್ಕ್, ಕೋಪನ್‌ಹೇಗನ್ | europe
Ireland, Dublin | आयरलैंड, डबलिन | ಐರ್ಲೆಂಡ್, ಡಬ್ಲಿನ್ | europe
Iceland, Reykjavik | आइसलैंड, रेक्याविक | ಐಸ್‌ಲ್ಯಾಂಡ್, ರೇಕ್ಯಾವಿಕ್ | europe
Belgium, Brussels | बेल्जियम, ब्रसेल्स | ಬೆಲ್ಜಿಯಂ, ಬ್ರಸೆಲ್ಸ್ | europe
Ukraine, Kyiv | यूक्रेन, कीव | ಉಕ್ರೇನ್, ಕೀವ್ | europe
Romania, Bucharest | रोमानिया, बुखारेस्ट | ರೊಮೇನಿಯಾ, ಬುಕಾರೆಸ್ಟ್ | europe
Bulgaria, Sofia | बुल्गारिया, सोफ़िया | ಬಲ್ಗೇರಿಯಾ, ಸೋಫಿಯಾ | europe
Russia, Moscow | रूस, मॉस्को | ರಷ್ಯಾ, ಮಾಸ್ಕೋ | europe
Britain, London | ब्रिटेन, लंदन | ಬ್ರಿಟನ್, ಲಂಡನ್ | europe
Japan, Tokyo | जापान, टोक्यो | ಜಪಾನ್, ಟೋಕಿಯೋ | asia
China, Beijing | चीन, बीजिंग | ಚೀನಾ, ಬೀಜಿಂಗ್ | asia
Nepal, Kathmandu | नेपाल, काठमांडू | ನೇಪಾಳ, ಕಠ್ಮಂಡು | asia
Bangladesh, Dhaka | बांग्लादेश, ढाका | ಬಾಂಗ್ಲಾದೇಶ, ಢಾಕಾ | asia
Pakistan, Islamabad | पाकिस्तान, इस्लामाबाद | ಪಾಕಿಸ್ತಾನ, ಇಸ್ಲಾಮಾಬಾದ್ | asia
Afghanistan, Kabul | अफ़ग़ानिस्तान, काबुल | ಅಫ್ಘಾನಿಸ್ತಾನ, ಕಾಬೂಲ್ | asia
Iran, Tehran | ईरान, तेहरान | ಇರಾನ್, ಟೆಹ್ರಾನ್ | asia
Iraq, Baghdad | इराक़, बग़दाद | ಇರಾಕ್, ಬಾಗ್ದಾದ್ | asia
Turkey, Ankara | तुर्की, अंकारा | ಟರ್ಕಿ, ಅಂಕಾರಾ | asia
Thailand, Bangkok | थाईलैंड, बैंकॉक | ಥೈಲ್ಯಾಂಡ್, ಬ್ಯಾಂಕಾಕ್ | asia
Vietnam, Hanoi | वियतनाम, हनोई | ವಿಯೆಟ್ನಾಂ, ಹನೋಯ್ | asia
Indonesia, Jakarta | इंडोनेशिया, जकार्ता | ಇಂಡೋನೇಷ್ಯಾ, ಜಕಾರ್ತಾ | asia
Malaysia, Kuala Lumpur | मलेशिया, कुआलालंपुर | ಮಲೇಷ್ಯಾ, ಕೌಲಾಲಂಪುರ | asia
South Korea, Seoul | दक्षिण कोरिया, सियोल | ದಕ್ಷಿಣ ಕೊರಿಯಾ, ಸಿಯೋಲ್ | asia
Mongolia, Ulaanbaatar | मंगोलिया, उलानबटार | ಮಂಗೋಲಿಯಾ, ಉಲಾನ್‌ಬಾತರ್ | asia
Philippines, Manila | फ़िलीपींस, मनीला | ಫಿಲಿಪ್ಪೀನ್ಸ್, ಮನಿಲಾ | asia
Qatar, Doha | क़तर, दोहा | ಕತಾರ್, ದೋಹಾ | asia
Saudi Arabia, Riyadh | सऊदी अरब, रियाद | ಸೌದಿ ಅರೇಬಿಯಾ, ರಿಯಾದ್ | asia
Egypt, Cairo | मिस्र, काहिरा | ಈಜಿಪ್ಟ್, ಕೈರೋ | africa
Kenya, Nairobi | केन्या, नैरोबी | ಕೀನ್ಯಾ, ನೈರೋಬಿ | africa
Nigeria, Abuja | नाइजीरिया, अबुजा | ನೈಜೀರಿಯಾ, ಅಬುಜಾ | africa
Ethiopia, Addis Ababa | इथियोपिया, अदीस अबाबा | ಇಥಿಯೋಪಿಯಾ, ಅಡಿಸ್ ಅಬಾಬಾ | africa
Morocco, Rabat | मोरक्को, रबात | ಮೊರಾಕೊ, ರಬಾತ್ | africa
Ghana, Accra | घाना, अकरा | ಘಾನಾ, ಅಕ್ರಾ | africa
Tunisia, Tunis | ट्यूनीशिया, ट्यूनिस | ಟುನೀಶಿಯಾ, ಟ್ಯೂನಿಸ್ | africa
Algeria, Algiers | अल्जीरिया, अल्जीयर्स | ಅಲ್ಜೀರಿಯಾ, ಅಲ್ಜಿಯರ್ಸ್ | africa
Uganda, Kampala | युगांडा, कंपाला | ಉಗಾಂಡಾ, ಕಂಪಾಲಾ | africa
Zimbabwe, Harare | ज़िम्बाब्वे, हरारे | ಜಿಂಬಾಬ್ವೆ, ಹರಾರೆ | africa
Canada, Ottawa | कनाडा, ओटावा | ಕೆನಡಾ, ಒಟ್ಟಾವಾ | north_america
Mexico, Mexico City | मेक्सिको, मेक्सिको सिटी | ಮೆಕ್ಸಿಕೊ, ಮೆಕ್ಸಿಕೊ ಸಿಟಿ | north_america
America, Washington | अमेरिका, वॉशिंगटन | ಅಮೆರಿಕ, ವಾಷಿಂಗ್ಟನ್ | north_america
Cuba, Havana | क्यूबा, हवाना | ಕ್ಯೂಬಾ, ಹವಾನಾ | north_america
Brazil, Brasilia | ब्राज़ील, ब्रासीलिया | ಬ್ರೆಜಿಲ್, ಬ್ರೆಸಿಲಿಯಾ | south_america
Argentina, Buenos Aires | अर्जेंटीना, ब्यूनस आयर्स | ಅರ್ಜೆಂಟೀನಾ, ಬ್ಯೂನಸ್ ಐರಿಸ್ | south_america
Chile, Santiago | चिली, सैंटियागो | ಚಿಲಿ, ಸ್ಯಾಂಟಿಯಾಗೊ | south_america
Peru, Lima | पेरू, लीमा | ಪೆರು, ಲಿಮಾ | south_america
Colombia, Bogota | कोलंबिया, बोगोटा | ಕೊಲಂಬಿಯಾ, ಬೊಗೋಟಾ | south_america
Venezuela, Caracas | वेनेज़ुएला, काराकास | ವೆನೆಜುವೆಲಾ, ಕರಾಕಸ್ | south_america
Australia, Canberra | ऑस्ट्रेलिया, कैनबरा | ಆಸ್ಟ್ರೇಲಿಯಾ, ಕ್ಯಾನ್‌ಬೆರಾ | oceania
New Zealand, Wellington | न्यूज़ीलैंड, वेलिंगटन | ನ್ಯೂಜಿಲೆಂಡ್, ವೆಲ್ಲಿಂಗ್ಟನ್ | oceania
"""

STATES = """
Karnataka, Bengaluru | कर्नाटक, बेंगलुरु | ಕರ್ನಾಟಕ, ಬೆಂಗಳೂರು
Kerala, Thiruvananthapuram | केरल, तिरुवनंतपुरम | ಕೇರಳ, ತಿರುವನಂತಪುರ
Tamil Nadu, Chennai | तमिलनाडु, चेन्नई | ತಮಿಳುನಾಡು, ಚೆನ್ನೈ
Andhra Pradesh, Amaravati | आंध्र प्रदेश, अमरावती | ಆಂಧ್ರ ಪ್ರದೇಶ, ಅಮರಾವತಿ
Telangana, Hyderabad | तेलंगाना, हैदराबाद | ತೆಲಂಗಾಣ, ಹೈದರಾಬಾದ್
Maharashtra, Mumbai | महाराष्ट्र, मुंबई | ಮಹಾರಾಷ್ಟ್ರ, ಮುಂಬೈ
Goa, Panaji | गोवा, पणजी | ಗೋವಾ, ಪಣಜಿ
Gujarat, Gandhinagar | गुजरात, गांधीनगर | ಗುಜರಾತ್, ಗಾಂಧಿನಗರ
Rajasthan, Jaipur | राजस्थान, जयपुर | ರಾಜಸ್ಥಾನ, ಜೈಪುರ
Punjab, Chandigarh | पंजाब, चंडीगढ़ | ಪಂಜಾಬ್, ಚಂಡೀಗಢ
Uttar Pradesh, Lucknow | उत्तर प्रदेश, लखनऊ | ಉತ್ತರ ಪ್ರದೇಶ, ಲಕ್ನೋ
Uttarakhand, Dehradun | उत्तराखंड, देहरादून | ಉತ್ತರಾಖಂಡ, ಡೆಹ್ರಾಡೂನ್
Himachal Pradesh, Shimla | हिमाचल प्रदेश, शिमला | ಹಿಮಾಚಲ ಪ್ರದೇಶ, ಶಿಮ್ಲಾ
Madhya Pradesh, Bhopal | मध्य प्रदेश, भोपाल | ಮಧ್ಯ ಪ್ರದೇಶ, ಭೋಪಾಲ್
Chhattisgarh, Raipur | छत्तीसगढ़, रायपुर | ಛತ್ತೀಸ್‌ಗಢ, ರಾಯಪುರ
Bihar, Patna | बिहार, पटना | ಬಿಹಾರ, ಪಾಟ್ನಾ
Jharkhand, Ranchi | झारखंड, रांची | ಜಾರ್ಖಂಡ್, ರಾಂಚಿ
West Bengal, Kolkata | पश्चिम बंगाल, कोलकाता | ಪಶ್ಚಿಮ ಬಂಗಾಳ, ಕೋಲ್ಕತ್ತಾ
Odisha, Bhubaneswar | ओडिशा, भुवनेश्वर | ಒಡಿಶಾ, ಭುವನೇಶ್ವರ
Assam, Dispur | असम, दिसपुर | ಅಸ್ಸಾಂ, ದಿಸ್ಪುರ
Sikkim, Gangtok | सिक्किम, गंगटोक | ಸಿಕ್ಕಿಂ, ಗ್ಯಾಂಗ್ಟಕ್
Meghalaya, Shillong | मेघालय, शिलांग | ಮೇಘಾಲಯ, ಶಿಲ್ಲಾಂಗ್
Manipur, Imphal | मणिपुर, इंफाल | ಮಣಿಪುರ, ಇಂಫಾಲ್
Mizoram, Aizawl | मिज़ोरम, आइज़ोल | ಮಿಜೋರಾಂ, ಐಜಾಲ್
Nagaland, Kohima | नागालैंड, कोहिमा | ನಾಗಾಲ್ಯಾಂಡ್, ಕೊಹಿಮಾ
Tripura, Agartala | त्रिपुरा, अगरतला | ತ್ರಿಪುರಾ, ಅಗರ್ತಲಾ
Arunachal Pradesh, Itanagar | अरुणाचल प्रदेश, ईटानगर | ಅರುಣಾಚಲ ಪ್ರದೇಶ, ಇಟಾನಗರ
"""

CONTINENTS = {
    "asia": ("Asia", "एशिया", "ಏಷ್ಯಾ"),
    "europe": ("Europe", "यूरोप", "ಯುರೋಪ್"),
    "africa": ("Africa", "अफ़्रीका", "ಆಫ್ರಿಕಾ"),
    "north_america": ("North America", "उत्तर अमेरिका", "ಉತ್ತರ ಅಮೆರಿಕ"),
    "south_america": ("South America", "दक्षिण अमेरिका", "ದಕ್ಷಿಣ ಅಮೆರಿಕ"),
    "oceania": ("Oceania", "ओशिआनिया", "ಓಷಿಯಾನಿಯಾ"),
}

LANGUAGES = ("en", "hi", "kn")


def parse(table):
    """Yields {lang: (name, capital)} and the continent key, or None for a state."""
    for line in table.strip().splitlines():
        parts = [part.strip() for part in line.split("|")]
        names = {lang: tuple(s.strip() for s in part.split(",")) for lang, part in zip(LANGUAGES, parts)}
        yield names, parts[3] if len(parts) > 3 else None


def place_facts():
    """Rows (relation, key, {lang: slots}): x is asked about, y is the answer."""
    for names, continent in parse(COUNTRIES):
        key = names["en"][0]
        yield "capital", key, {l: {"x": n[0], "y": n[1]} for l, n in names.items()}
        yield "capital_of", key, {l: {"x": n[1], "y": n[0]} for l, n in names.items()}
        where = dict(zip(LANGUAGES, CONTINENTS[continent]))
        yield "continent", key, {l: {"x": n[0], "y": where[l]} for l, n in names.items()}
    for names, _ in parse(STATES):
        key = names["en"][0]
        yield "state_capital", key, {l: {"x": n[0], "y": n[1]} for l, n in names.items()}
        yield "state_of", key, {l: {"x": n[1], "y": n[0]} for l, n in names.items()}
