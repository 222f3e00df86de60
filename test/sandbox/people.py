"""350 people who do not exist, the same at every run: what the CRM and the phone know of them.

Numbers 0..149 are in both, 150..199 on the phone only, 200..349 in the CRM only.
Mail domains and telephone numbers are of the ranges that are reserved for fiction.
"""
import datetime
import unicodedata

BOTH, PHONE, CRM = range(0, 150), range(150, 200), range(200, 350)

# first names; last names; city, country.  "Native=latin" where a mail address cannot be made of the letters.
LANDS = [line.split(" | ") for line in """
Björn=Bjoern Anna Jürgen=Juergen Käthe=Kaethe Lukas Sabine Uwe Ines Till Maren | Groß=Gross Müller=Mueller Köhler=Koehler Weiß=Weiss Becker Vogt Lang Jäger=Jaeger Sommer Brandt | Hamburg | Germany
Alice Ben Chloe Daniel Emma George Harriet Jack Lucy Owen | Abbott Barker Carter Doyle Ellis Fletcher Grant Hughes Ingram Jarvis | Leeds | United Kingdom
Amélie Benoît Chloé François Hélène Jérôme Léa Noël Renée Théo | Bernard Côté Dubois Fèvre Garnier Lefèvre Martin Noiret Petit Roux | Lyon | France
Łucja=Lucja Bartosz Celina Dawid Elżbieta Grzegorz Jadwiga Krzysztof Małgorzata=Malgorzata Paweł=Pawel | Kowalski Wójcik Lewandowski Zieliński Szymański Dąbrowski Jankowski Mazur Krawczyk Wróbel=Wrobel | Kraków | Poland
Álvaro Beatriz Carmen Íñigo Lucía Martín Nuria Óscar Raúl Sofía | Álvarez Benítez Cortés Domínguez Ibáñez Muñoz Núñez Peña Ríos Vázquez | Sevilla | Spain
Олена=Olena Андрій=Andrii Богдан=Bohdan Дарина=Daryna Ірина=Iryna Максим=Maksym Оксана=Oksana Петро=Petro Софія=Sofiia Тарас=Taras | Бондаренко=Bondarenko Гончар=Honchar Ковальчук=Kovalchuk Лисенко=Lysenko Мельник=Melnyk Поліщук=Polishchuk Руденко=Rudenko Савчук=Savchuk Ткач=Tkach Шевченко=Shevchenko | Львів | Ukraine
Ελένη=Eleni Γιώργος=Giorgos Δήμητρα=Dimitra Κώστας=Kostas Μαρία=Maria Νίκος=Nikos Σοφία=Sofia Τάσος=Tasos Χρήστος=Christos Ιωάννα=Ioanna | Αγγέλου=Angelou Βασιλείου=Vasileiou Γεωργίου=Georgiou Δήμου=Dimou Ιωάννου=Ioannou Κυριάκου=Kyriakou Λάμπρου=Lambrou Μάνος=Manos Νικολάου=Nikolaou Πέτρου=Petrou | Πάτρα | Greece
""".strip().split("\n")]
COMPANIES = ["Ash & Elm", "Bluewater Logistics", "Cobalt Works", "Delphi Print", "Estrella Foods", "Fjord Robotics", "Granite Bank"]
TITLES = ["Account Manager", "Buyer", "Controller", "Designer", "Engineer", "Head of Sales", "Office Manager", "Project Lead"]
START = datetime.datetime(2026, 1, 5, 8, 0)


def latin(name):
    native, _, given = name.partition("=")
    return unicodedata.normalize("NFD", given or native).encode("ascii", "ignore").decode().lower()


def person(n):
    firsts, lasts, city, country = LANDS[n % len(LANDS)]
    k = n // len(LANDS)
    first = firsts.split()[k % 10]
    last = lasts.split()[(k + k // 10) % 10]
    company = COMPANIES[(n + k) % len(COMPANIES)]
    return {
        "first": first.partition("=")[0], "last": last.partition("=")[0], "city": city, "country": country,
        "company": company, "title": TITLES[(3 * n + k) % len(TITLES)],
        "mail": "%s.%s@%s.example" % (latin(first), latin(last), company.split()[0].lower()),
        "office": "+44 20 7946 %04d" % n, "mobile": "+44 7700 900%03d" % n}


def crm_contacts():
    """As the CRM holds them: 300, last changed at some time of January or February."""
    contacts = []
    for n in (*BOTH, *CRM):
        p = person(n)
        changed = START + datetime.timedelta(hours=4 * n + n % 3)
        contacts.append({
            "id": str(1000 + n), "created_at": "2025-%02d-01T09:00:00.000000Z" % (n % 12 + 1),
            "updated_at": changed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "properties": {"firstname": p["first"], "lastname": p["last"], "email": p["mail"], "phone": p["office"],
                           "company": p["company"], "jobtitle": p["title"], "city": p["city"], "country": p["country"],
                           **({"mobilephone": p["mobile"]} if n % 2 else {})}})
    return contacts


def card(n, *more):
    """As the phone holds them: a vCard; some with another number, title or spelling than the CRM's."""
    p = person(n)
    first = p["first"][0] + "." if n % 10 == 9 else p["first"]
    mail = p["mail"].title() if n % 15 == 7 else p["mail"]
    mobile = p["mobile"] if n % 3 else "+44 (0)7700-900%03d" % (n + 400)
    lines = ["BEGIN:VCARD", "VERSION:3.0", "UID:person-%d" % n, "N:%s;%s;;;" % (p["last"], first), "FN:%s %s" % (first, p["last"]),
             "EMAIL;TYPE=INTERNET:" + mail, "TEL;TYPE=CELL:" + mobile]
    if n % 4 == 0:
        lines += ["ORG:" + p["company"].split()[0], "TITLE:" + ("Boss" if n % 8 == 0 else p["title"])]
    if n % 5 == 0:
        lines += ["BDAY:19%02d-%02d-%02d" % (60 + n % 40, n % 12 + 1, n % 28 + 1)]
    return "\r\n".join([*lines, *more, "END:VCARD", ""])


def cards():
    return "".join(card(n) for n in (*BOTH, *PHONE))
