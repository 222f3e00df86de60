# Mail addresses on which independent validators agree: what email_status calls
# an address as it stands is what they call valid, and normalize_email gives the
# expected spelling.  Runs where CONTACTSYNC_EMAILS names a TSV file of input
# (JSON string), verdict and canonical form (JSON string).
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $corpus = $ENV{CONTACTSYNC_EMAILS};
plan skip_all => 'CONTACTSYNC_EMAILS names no file' unless $corpus && -f $corpus;

my $json = JSON::PP->new->allow_nonref->utf8;
my (@rows, $unstorable);
for my $line (split /\n/, slurp_file($corpus))
{
	next if $line =~ /^#/;
	my ($input, $verdict, $canonical) = split /\t/, $line;
	my $text = eval { $json->decode($input) };
	# a lone surrogate or a NUL is no text: it cannot even be asked about
	if (!defined $text || $text =~ /[\0\x{D800}-\x{DFFF}]/) { $unstorable++; next }
	push @rows, { input => $input, verdict => $verdict, canonical => $canonical eq '-' ? 'null' : $canonical };
}
plan skip_all => 'CONTACTSYNC_EMAILS holds no addresses' unless @rows;
note(scalar(@rows) . " rows of $corpus, and " . ($unstorable // 0) . ' that are no text');

my $node = PostgreSQL::Test::Cluster->new('emails');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off");
$node->start;

my $sql = "SET client_min_messages = warning; CREATE EXTENSION contactsync; CREATE TABLE rows (id integer, input text, verdict text, canonical text);\n";
for my $i (0 .. $#rows)
{
	my ($input, $canonical) = map { s/'/''/gr } @{ $rows[$i] }{qw(input canonical)};
	$sql .= "INSERT INTO rows VALUES ($i, '$input'::jsonb #>> '{}', '$rows[$i]{verdict}', '$canonical'::jsonb #>> '{}');\n";
}
$node->safe_psql('postgres', $sql . q{
	CREATE TABLE judged AS
		SELECT *, contactsync.email_status(input) AS status, contactsync.normalize_email(input) AS got FROM rows});

# the rows that a condition picks, as the corpus spells them
sub picked
{
	my ($condition) = @_;
	my $ids = $node->safe_psql('postgres', "SELECT id || ' ' || status FROM judged WHERE $condition ORDER BY id");
	return join "\n", map { my ($id, $status) = split / /; "$rows[$id]{input} is $status" } split /\n/, $ids;
}

is(picked(q{verdict = 'valid' AND status NOT IN ('valid', 'unusual')}), '', 'every valid address is one');
is(picked(q{verdict = 'invalid' AND status IN ('valid', 'unusual')}), '', 'no invalid address is one');
is(picked(q{verdict = 'valid' AND got IS DISTINCT FROM canonical}), '', 'the canonical form is the expected one');
is(picked(q{got IS NOT NULL AND (contactsync.normalize_email(got) IS DISTINCT FROM got
	OR contactsync.email_status(got) NOT IN ('valid', 'unusual'))}), '', 'a canonical form is its own');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM judged, LATERAL (SELECT jsonb_build_object('emails', jsonb_build_array(input))::contactsync.contact AS c) s
	WHERE NOT contactsync.contact_identical(c, c::text::contactsync.contact)}), '0', 'contacts with these addresses are canonical');

note($node->safe_psql('postgres', q{SELECT verdict || ' rows that are ' || status || ': ' || count(*) FROM judged GROUP BY verdict, status ORDER BY 1}));
note("recovered:\n" . picked(q{verdict = 'invalid' AND status = 'repaired'}));

$node->stop;
done_testing();
