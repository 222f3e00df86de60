/*
 * contact_vcard.h
 *		What the reader of vCards, its mapping and the writer share.
 *
 * contact_vcard.c takes cards apart into properties (contact_vcard_decode.c
 * their bytes), contact_vcard_map.c and contact_vcard_rest.c make a contact of
 * them, contact_vcard_write.c writes one, contact_vcard_io.c is for SQL.
 */
#ifndef CONTACTSYNC_CONTACT_VCARD_H
#define CONTACTSYNC_CONTACT_VCARD_H

#include "contact/contact.h"

#define VCARD_MAX_CARD			(1024 * 1024)
#define VCARD_MAX_VALUE			(64 * 1024)
#define VCARD_MAX_PROPERTIES	512
#define VCARD_MAX_PARAMS		64
#define VCARD_MAX_NAME			128
#define VCARD_MAX_NESTING		2

typedef struct VcardParam
{
	StrView		name;			/* upper case */
	StrView		value;			/* one of a list */
} VcardParam;

typedef struct VcardProperty
{
	StrView		group;			/* lower case; absent if none */
	StrView		name;			/* upper case */
	StrView		value;			/* decoded, escapes as they are; in the
								 * server's encoding */
	VcardParam *params;			/* without what decoding used up */
	int			nparams;
	bool		base64;			/* the value is base64 */
} VcardProperty;

/* How much of a value the writer escapes: always backslashes and line ends. */
typedef enum VcardEscape
{
	VCARD_TEXT,					/* commas and semicolons */
	VCARD_LIST,					/* not the commas that separate: a comma
								 * with a blank behind it is prose */
	VCARD_RAW					/* neither: URIs, structured values */
} VcardEscape;

typedef struct VcardMap
{
	VcardReader *reader;
	VcardProperty *props;
	int			nprops;
	ContactItem *items;
	int			nitems;
	int			maxitems;
	int			cost;
	uint32		seen;			/* CF_BIT of scalars that have a value */
	bool		has_name;		/* from N */
	bool		has_org;
	StrView		formatted;		/* FN */
	bool		rest[VCARD_MAX_PROPERTIES]; /* properties without a field */
} VcardMap;

static inline bool
vcard_is_alnum(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static inline bool
vcard_is_base64(unsigned char c)
{
	/* bits of + / 0-9 A-Z a-z: comparing takes branches that guess wrong */
	static const uint32 set[8] = {0, 0x03FF8800, 0x07FFFFFE, 0x07FFFFFE};

	return (set[c >> 5] >> (c & 31)) & 1;
}

/* Are they the same, case aside? */
static inline bool
contact_vcard_is(StrView s, const char *word)
{
	return s.len == strlen(word) && pg_strncasecmp(s.ptr, word, s.len) == 0;
}

/* contact_vcard.c */
extern bool contact_vcard_read(VcardReader *r, VcardProperty **props, int *nprops);
extern bool contact_vcard_is_name(StrView s);	/* can name a property */
extern StrView contact_vcard_unescape(StrView raw);

/* contact_vcard_decode.c; results palloc'd where bytes change */

/*
 * Bytes as text of the server's encoding.  What is not valid in the charset
 * that was named, or in UTF-8, is Windows-1252.  False if the server's
 * encoding lacks a character.
 */
extern bool contact_vcard_decode(StrView *s, StrView charset);
extern StrView contact_vcard_decode_quoted(StrView s);
/* Base64 without blanks and with its padding; false if it is not base64. */
extern bool contact_vcard_clean_base64(StrView s, StrView *result);
extern StrView contact_vcard_decode_base64(StrView s);

/* contact_vcard_map.c */

/* A raw value as clean text. */
extern StrView contact_vcard_text(StrView raw);
/* Bytes that a string takes in JSON. */
extern int	contact_vcard_json_cost(StrView s);
/* Count what is about to be kept; false if the card has no room for it. */
extern bool contact_vcard_afford(VcardMap *m, int cost);
extern void contact_vcard_append(VcardMap *m, const ContactItem *item);
extern StrView contact_vcard_json(JsonbValue *v);
extern void contact_vcard_add_metadata(VcardMap *m, StrView key, StrView text);
/* The first label of a group, or -1. */
extern int	contact_vcard_find_label(const VcardMap *m, StrView group);
extern bool contact_vcard_is_label(const VcardProperty *prop);

/* Parts that say something, with the separator between them. */
extern StrView contact_vcard_join(const StrView *parts, int n, const char *separator);
/* A date as YYYY-MM-DD or --MM-DD; as it is if it is not one. */
extern StrView contact_vcard_date(StrView s, StrView omitted_year);
extern bool contact_vcard_is_uri(StrView s);
/* A number, or tel: URI, as value and extension of an item. */
extern void contact_vcard_read_phone(StrView s, ContactItem *item);

/* The label that TYPE words make; absent if they say nothing. */
extern StrView contact_vcard_type(bool phone, const StrView *words, int nwords);

/* contact_vcard_rest.c: metadata of all properties marked as rest */
extern void contact_vcard_map_rest(VcardMap *m);

/* contact_vcard_write.c */
extern void contact_vcard_escape(StringInfo buf, StrView s, VcardEscape how);
/* The property that a key of metadata stands for, upper case; palloc'd. */
extern StrView contact_vcard_property_of(StrView key, VcardEscape *how);

#endif							/* CONTACTSYNC_CONTACT_VCARD_H */
