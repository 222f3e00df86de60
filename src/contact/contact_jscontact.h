/*
 * contact_jscontact.h
 *		What the reader and the writer of JSContact share.
 *
 * What of a card has no field is metadata.jscontact, the "residue": an object
 * of those members of the card, as they came, that the writer would not make
 * the same again from the fields alone.  The writer takes a member of the
 * residue as it is where reading it still gives what the contact says, and
 * adapts it otherwise, entry by entry.
 */
#ifndef CONTACTSYNC_CONTACT_JSCONTACT_H
#define CONTACTSYNC_CONTACT_JSCONTACT_H

#include "contact/contact_vcard.h"

/* Members of a card that have fields, in the order in which they are read. */
typedef enum JsMember
{
	JS_NICKNAMES,
	JS_ORGANIZATIONS,
	JS_TITLES,
	JS_EMAILS,
	JS_PHONES,
	JS_ADDRESSES,
	JS_SERVICES,				/* before links: it is told of an url once */
	JS_LINKS,
	JS_ANNIVERSARIES,
	JS_NOTES,
	JS_KEYWORDS,
	JS_MEDIA,
	JS_NAME						/* last: a whole name may repeat others */
} JsMember;

#define JS_MEMBERS			(JS_NAME + 1)

/* What is read from one entry of a member that may have more. */
typedef enum JsSlot
{
	JS_SLOT_NICKNAME,
	JS_SLOT_ORGANIZATION,
	JS_SLOT_TITLE,
	JS_SLOT_ROLE,
	JS_SLOT_BIRTHDAY,
	JS_SLOT_NOTE,
	JS_SLOT_PHOTO
} JsSlot;

#define JS_SLOTS			(JS_SLOT_PHOTO + 1)

typedef struct JsSlotInfo
{
	JsMember	member;
	const char *kind;			/* that the entry has; NULL = any */
	const char *default_kind;	/* of an entry that has none */
	const char *value;			/* its member with the text; NULL = not that simple */
	ContactField field;			/* metadata: "role" */
	const char *managed[3];		/* its members that the writer makes */
} JsSlotInfo;

#define JS_VENDOR			"contactsync.dev:"
#define JS_STAMPS			JS_VENDOR "stamps"
#define JS_METADATA			JS_VENDOR "metadata"
#define JS_BIRTHDAY			JS_VENDOR "birthday"
#define JS_VERIFIED			JS_VENDOR "verified"
#define JS_EXTENSION		JS_VENDOR "extension"	/* where a number cannot have it */
#define JS_LABEL			JS_VENDOR "label"	/* of addresses: RFC 9553 has none */

typedef struct JsReader
{
	const ContactValue *context;	/* what a whole name may repeat; NULL = the
									 * items read so far */
	StrView		kind;			/* of the card */
	bool		residue;		/* a photo's uri may be null: it is the field's */
	ContactItem *items;
	int			nitems;
	int			maxitems;
	StrView		chosen[JS_SLOTS];	/* ids of the entries taken */
	ContactError *error;
	const char *member;			/* where we are, for error */
	StrView		id;
} JsReader;

typedef struct JsWriter
{
	const ContactValue *v;
	JsonbContainer *residue;	/* NULL if there is none */
	uint32		dropped;		/* bit per JsMember that the residue is not asked for */
	StrView		kind;			/* of the card */
} JsWriter;

static inline StrView
js_string(const JsonbValue *v)
{
	return v && v->type == jbvString ? strview(v->val.string.val, v->val.string.len) : strview(NULL, 0);
}

static inline bool
js_is_object(const JsonbValue *v)
{
	return v && v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data);
}

static inline bool
js_is_array(const JsonbValue *v)
{
	return v && v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data);
}

/* contact_jscontact.c */
extern const char *const contact_js_members[JS_MEMBERS];
extern const JsSlotInfo contact_js_slots[JS_SLOTS];
extern JsonbValue *contact_js_get(JsonbContainer *object, const char *name);	/* or NULL */
/* Append a member's items, normalised; false, with r->error set, on a fault. */
extern bool contact_js_read(JsReader *r, JsMember member, JsonbValue *v);
/* One entry of a list; *taken if it gives an item. */
extern bool contact_js_read_entry(JsReader *r, JsMember member, JsonbContainer *entry,
								  ContactItem *item, bool *taken);
/* The name as its parts make it. */
extern StrView contact_js_joined_name(const ContactItem *items, int nitems);
extern StrView contact_js_type(bool phone, const char *context, const char *feature);

/* contact_jscontact_write.c */

/* Append a member's JSON; false if the contact has nothing for it. */
extern bool contact_js_write(JsWriter *w, JsMember member, StringInfo buf);
extern void contact_js_put_string(StringInfo buf, StrView s);
extern void contact_js_put_value(StringInfo buf, const JsonbValue *v);
/* The uid of a contact that has none, made of its content. */
extern StrView contact_js_content_uid(const ContactValue *v);

#endif							/* CONTACTSYNC_CONTACT_JSCONTACT_H */
