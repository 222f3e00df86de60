/*
 * contact.h
 *		The contact value: what every module knows of a contact.
 *
 * A contact is a flat, sorted list of items.  A scalar field has at most one
 * item; a list field (emails, phones, addresses, urls, tags, metadata) has one
 * item for each element, identified by its normalised key.  An item may carry
 * a stamp: which source said it, when it last changed and when it was last
 * confirmed.  An item may also be a tombstone: "this source says that there is
 * no such value"; tombstones live only inside stamped values (record states)
 * and are invisible to accessors, comparison and keys.
 *
 * ContactValue is the plain in-memory form that the merge algorithms work on;
 * the varlena Contact is its stored form.  contact_deform points into the
 * datum, so a deformed value lives as long as the datum does.
 *
 * Everything declared in the first part is plain C that also builds as
 * FRONTEND code (palloc from fe_memutils): no ereport, no catalogs, no clock.
 */
#ifndef CONTACTSYNC_CONTACT_H
#define CONTACTSYNC_CONTACT_H

#ifndef FRONTEND
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#endif

/* In canonical order: also the order of items in a value and in its output. */
typedef enum ContactField
{
	CF_FIRST_NAME,
	CF_MIDDLE_NAME,
	CF_LAST_NAME,
	CF_PREFIX,
	CF_SUFFIX,
	CF_NICKNAME,
	CF_COMPANY,
	CF_DEPARTMENT,
	CF_TITLE,
	CF_BIRTHDAY,
	CF_NOTE,
	CF_PHOTO,
	CF_EMAILS,					/* first list field */
	CF_PHONES,
	CF_ADDRESSES,
	CF_URLS,
	CF_TAGS,
	CF_METADATA
} ContactField;

#define CF_COUNT			18
#define CF_IS_LIST(f_)		((f_) >= CF_EMAILS)
#define CF_BIT(f_)			(((uint32) 1) << (f_))

/* A string that is not NUL-terminated; ptr is NULL when absent. */
typedef struct StrView
{
	const char *ptr;
	int32		len;
} StrView;

static inline StrView
strview(const char *ptr, int len)
{
	StrView		s;

	s.ptr = len > 0 ? ptr : NULL;
	s.len = len > 0 ? len : 0;
	return s;
}

static inline StrView
strview_of(const char *s)
{
	return strview(s, strlen(s));
}

static inline bool
strview_same(StrView a, StrView b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Components of an address, in canonical order. */
typedef enum ContactAddressPart
{
	CA_STREET,
	CA_CITY,
	CA_REGION,
	CA_POSTAL_CODE,
	CA_COUNTRY
} ContactAddressPart;

#define CA_COUNT			5

/* Item flags */
#define CI_PRIMARY			0x01
#define CI_VERIFIED			0x02	/* "verified": true */
#define CI_UNVERIFIED		0x04	/* "verified": false was said; neither = not said */
#define CI_TOMBSTONE		0x08	/* said to be empty (element or whole field) */

typedef struct ContactItem
{
	uint8		field;			/* ContactField */
	uint8		flags;			/* CI_* */
	int16		stamp;			/* index into stamps, -1 = none */
	StrView		key;			/* lists: the element's identity (normalised);
								 * metadata: the key's name; scalars, and the
								 * tombstone of a whole list: empty */
	StrView		value;			/* text as spelled: scalar, mail address,
								 * phone number, url, tag; metadata: JSON text
								 * as jsonb prints it; addresses: unused */
	StrView		type;			/* label, lower case; lists only */
	StrView		extension;		/* phones only */
	StrView		part[CA_COUNT]; /* addresses only */
} ContactItem;

/* Stamp flags */
#define CS_ESTIMATE			0x01	/* first sight: changed_at is an estimate */
#define CS_ENRICHED			0x02
#define CS_DERIVED			0x04
#define CS_OVERRIDDEN		0x08
#define CS_VERIFIED			0x10	/* somebody checked the value */

/*
 * Times are microseconds since 2000-01-01 UTC, as TimestampTz; PG_INT64_MIN is
 * -infinity and PG_INT64_MAX infinity.
 */
typedef struct ContactStamp
{
	StrView		source;			/* source name */
	int64		as_of;			/* latest version that covers the cell */
	int64		changed_at;		/* first version of the last run of equals */
	uint8		flags;			/* CS_* */
} ContactStamp;

typedef struct ContactValue
{
	int			nitems;
	int			nstamps;
	ContactItem *items;			/* sorted by (field, key bytes) */
	ContactStamp *stamps;
} ContactValue;

/*
 * What a JSON document says about a contact.
 *
 * A key that is present claims its field: a value asserts it, null (or an
 * empty string, object or list) clears it.  "covers" has a bit for every field
 * that the document speaks about as a whole; "elements" lists the single
 * elements that it speaks about in fields it does not cover whole: metadata
 * keys, and the members of {"add": [...], "remove": [...]} in a list, removed
 * ones being items with CI_TOMBSTONE.
 */
typedef struct ContactClaims
{
	ContactValue value;			/* no tombstones, no stamps */
	uint32		covers;			/* CF_BIT mask */
	int			nelements;
	ContactItem *elements;		/* field, key, and CI_TOMBSTONE where it is
								 * said not to be there; sorted, unique */
} ContactClaims;

/* The outcome of a parse: path is a JSON path such as $.emails[0].address. */
typedef struct ContactError
{
	const char *message;		/* NULL = no error; primary message text */
	bool		limit;			/* a cap was exceeded (54000); else the input is
								 * malformed (22P02) */
	char		path[128];
} ContactError;

/* contact_core.c: names, order, canonical bytes */
extern const char *const contact_field_names[CF_COUNT];
extern int	contact_field_lookup(const char *name, int len);	/* -1 if unknown */
extern int	contact_item_cmp(const ContactItem *a, const ContactItem *b);	/* (field, key) */
extern bool contact_item_same(const ContactItem *a, const ContactItem *b);	/* same content, stamps aside */
extern void contact_sort(ContactValue *v);	/* sort, join duplicates, one primary per list */
/* Canonical bytes of an item's content (no stamp), for digests and ties; palloc'd. */
extern StrView contact_item_bytes(const ContactItem *item);
extern int	strview_cmp(StrView a, StrView b);	/* memcmp order, absent < empty */
/* Order of contents: stamps and tombstones aside; 0 means equal. */
extern int	contact_value_cmp(const ContactValue *a, const ContactValue *b);
/* Index of the item with this identity, or -1. */
extern int	contact_find(const ContactValue *v, ContactField field, StrView key);

/*
 * contact_norm.c: keys.  Result palloc'd; ptr is NULL if nothing usable.  Never
 * throw, as LEAKPROOF functions call them.  A usable address's key is its own
 * key, and a phone element's key is "+" and digits only if contact_phone_key
 * knows the number: contact_key_recognises counts on both.
 */
extern StrView contact_phone_key(StrView number, StrView extension);
extern StrView contact_name_key(StrView name);	/* folded in full, blanks collapsed */

typedef enum ContactFolding
{
	CONTACT_FOLD_SIMPLE,		/* to one character, and not to ASCII from outside */
	CONTACT_FOLD_FULL
} ContactFolding;

/* A clean text without its case; points into the argument where nothing changes. */
extern StrView contact_fold(StrView s, ContactFolding how);
/*
 * Canonical spelling of free text: trimmed and, in UTF8, NFC.  Absent if
 * nothing is left; points into the argument where nothing changes.
 */
extern StrView contact_text_clean(StrView s);
/*
 * Bring an item as said by a source into canonical form: spelling cleaned, key
 * set.  False if nothing is left of it.  Tombstones keep the key they have.
 */
extern bool contact_item_normalize(ContactItem *item);

/* contact_email.c: mail addresses */

typedef enum ContactEmailStatus
{
	CONTACT_EMAIL_INVALID,
	CONTACT_EMAIL_REPAIRED,		/* once what stood around it was taken off */
	CONTACT_EMAIL_UNUSUAL,		/* by the letter: an address literal, one label
								 * or a numeric one at the end, a local part
								 * that needs its quotes */
	CONTACT_EMAIL_VALID
} ContactEmailStatus;

/*
 * What a text is as a mail address, and the canonical form, which is palloc'd
 * and absent if it is none.  Never throws for bad input.
 */
extern ContactEmailStatus contact_email_parse(StrView address, StrView *canonical);
/*
 * How an address is kept (in canonical form, or of what is none the text,
 * cleaned) and its key.  They may point into the argument.
 */
extern void contact_email_forms(StrView address, StrView *kept, StrView *key);
/* What two spellings of an address share, without the "email:" prefix; absent if it is none. */
extern StrView contact_email_key(StrView address);

#ifndef FRONTEND

/* The stored form; its layout is private to contact_layout.c. */
typedef struct Contact
{
	int32		vl_len_;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Contact;

/*
 * Caps.  What may be stored is what can be read back: CONTACT_MAX_TEXT is the
 * longest text that a contact within the other caps can have, every byte of it
 * escaped as \u0001 and each item with its names and its stamp.
 */
#define CONTACT_MAX_ITEMS		10000	/* tombstones included */
#define CONTACT_MAX_NESTING		32
#define CONTACT_MAX_SIZE		0xFFFFFF	/* of contents and provenance */
#define CONTACT_MAX_TEXT		(6 * CONTACT_MAX_SIZE + 512 * CONTACT_MAX_ITEMS)

#define DatumGetContactP(d_)	((Contact *) PG_DETOAST_DATUM(d_))
#define PG_GETARG_CONTACT_P(n_) DatumGetContactP(PG_GETARG_DATUM(n_))
#define PG_RETURN_CONTACT_P(c_) PG_RETURN_POINTER(c_)

/* contact_layout.c */
/* Is the value within the caps?  If not, *error says which it exceeds. */
extern bool contact_fits(const ContactValue *v, ContactError *error);
extern Contact *contact_form(const ContactValue *v);	/* palloc'd; 54000 if it does not fit */
extern void contact_deform(const Contact *c, ContactValue *v);	/* points into c */

/*
 * A look at some fields of a stored contact without reading the others, and of
 * a toasted one, without fetching what stands behind them.
 */
typedef struct ContactReader
{
	uint32		map;			/* CF_BIT of each field that has items */
	int			nitems;
	int			flags;			/* of the layout's own */
	const char *starts;
	const char *entries;
	const char *body;
	void	   *copy;			/* what was detoasted, to be freed, or NULL */
} ContactReader;

/* Without "bytes", only flags and liveness of the fields can be asked for. */
extern void contact_read(ContactReader *r, Datum datum, uint32 fields, bool bytes);
/* Index of the field's first item; *end is behind its last, equal if it has none. */
extern int	contact_read_field(const ContactReader *r, ContactField field, int *end);
extern uint8 contact_read_flags(const ContactReader *r, int i);
/* Item i, which is one of the field's; points into the datum. */
extern void contact_read_item(const ContactReader *r, ContactField field, int i, ContactItem *item);
/* A scalar field's value, or NULL; a text with a short header inside the datum, if it is short. */
extern text *contact_read_scalar(const ContactReader *r, ContactField field);
/* The item with this identity; false if there is none, or a tombstone. */
extern bool contact_read_find(const ContactReader *r, ContactField field, StrView key, ContactItem *item);
extern bool contact_read_is_live(const ContactReader *r, ContactField field);	/* has more than tombstones */

/* contact_json.c */

/* Names of an address's parts, and of the member that is a list element's value. */
extern const char *const contact_address_members[CA_COUNT];
extern const char *const contact_value_members[CF_COUNT];	/* NULL where there is none */

/*
 * Parse canonical JSON.  With patch false, nulls are dropped and covers and
 * elements are what the document names.  False on a structural error, which is
 * described in *error; never throws for bad input.  Result points into fresh
 * palloc'd memory.
 */
extern bool contact_claims_from_jsonb(const Jsonb *json, bool patch,
									  ContactClaims *claims, ContactError *error);
/* Append the value's JSON text; stamps only if with_provenance. */
extern void contact_to_json(StringInfo buf, const ContactValue *v, bool with_provenance);
/* One item as the JSON that stands for it inside its field (element of a list, or scalar). */
extern void contact_item_to_json(StringInfo buf, const ContactItem *item);
/* A field alone, as in contact_to_json; false if the value has none. */
extern bool contact_field_to_json(StringInfo buf, const ContactValue *v, ContactField field);
/* The object of "_provenance". */
extern void contact_provenance_to_json(StringInfo buf, const ContactValue *v, bool tombstones);
/*
 * Attach the stamps of "_provenance", if it is there, to a sorted value; adds
 * its tombstones.  False, with *error set, if they do not fit it.
 */
extern bool contact_stamps_from_jsonb(const Jsonb *json, ContactValue *v, ContactError *error);

/*
 * contact_parse.c: the value of a usual document; false if it is none such, and
 * has to be read by way of jsonb.  Points into the text.
 */
extern bool contact_parse(const char *text, int len, ContactValue *v);

/* contact_map.c: a provider's JSON as ours, and what a mapping speaks about */
extern Jsonb *contact_map(Jsonb *map, Jsonb *payload, bool patch);
/* The first thing that an SQL/JSON path finds; false if there is none. */
extern bool contact_map_find(const JsonbValue *path, Jsonb *payload, JsonbValue *result);
extern void contact_map_coverage(Jsonb *map, ContactClaims *mask);

/* contact_vcard.c: vCard 2.1, 3.0 and 4.0 as real software writes them */

typedef struct VcardReader
{
	const char *ptr;			/* bytes as they came; of UTF-16, as UTF-8 */
	int			len;
	int			at;				/* where the next card is looked for */
	int			lf_from;		/* from here, the first line feed is at lf */
	int			lf;
	bool		text;			/* UTF-8 for certain: CHARSET counts for
								 * encoded values only */
	bool		keep_uid;		/* UID goes to metadata.uid */

	/* the last card */
	int			skipped;		/* lines that could not be read */
	bool		limit;			/* a cap was exceeded (size, properties) */
	int			version;		/* 21, 30, 40; 0 = not said */
	StrView		uid;
	StrView		kind;			/* as KIND says, lower case */
	int64		rev;			/* as TimestampTz; PG_INT64_MIN = not readable */
} VcardReader;

/* Begin to read; a UTF-16 file is converted in the current memory context. */
extern void contact_vcard_open(VcardReader *r, const char *ptr, int len);
/*
 * The next card's content, normalised and sorted; false at the end.  Never
 * throws for bad input.  Leaves garbage in the current memory context, which
 * the caller resets from card to card.
 */
extern bool contact_vcard_next(VcardReader *r, ContactValue *v);

/* contact_vcard_write.c: append a card; version is 30 or 40. */
extern void contact_to_vcard(StringInfo buf, const ContactValue *v, int version);

/* contact_get.c */

/* The field of this name as jsonb; NULL if it has no value. */
extern Jsonb *contact_field_jsonb(Datum contact, const text *name);
/* The items of one field, as the value of a member; false and nothing if it has no value. */
extern bool contact_push_items(JsonbParseState **state, const ContactItem *items, int n);

/*
 * Whether an element's key recognises a person wherever it stands: a usable
 * mail address, or a number in E.164 without an extension.  Depends on the
 * stored key alone, so that what an index holds stays true.
 */
extern bool contact_key_recognises(ContactField field, StrView key);
/* The key with "email:" or "tel:" before it, as contact_keys gives it. */
extern text *contact_key_text(ContactField field, StrView key);
/* The reverse; false if the text is none such.  The key points into it. */
extern bool contact_key_of_text(const text *t, ContactField *field, StrView *key);

/* contact_diff.c */
/* {"title": {"old": ..., "new": ...}}; NULL is no contact. */
extern Jsonb *contact_diff_jsonb(const ContactValue *old, const ContactValue *new, bool *differs);

/* contact_io.c: parse and form, errors as an input function raises them. */
struct Node;
extern Contact *contact_from_jsonb(const Jsonb *json, struct Node *escontext);
extern void contact_error_report(const ContactError *error, struct Node *escontext);

#endif							/* !FRONTEND */
#endif							/* CONTACTSYNC_CONTACT_H */
