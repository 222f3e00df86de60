# Real vCards: every file is read, each card once, and what was read comes back
# from what is written of it.  Runs where CONTACTSYNC_CORPUS names a folder of
# .vcf files.
use strict;
use warnings;
use Encode qw(decode encode);
use File::Find;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $corpus = $ENV{CONTACTSYNC_CORPUS};
plan skip_all => 'CONTACTSYNC_CORPUS names no folder' unless $corpus && -d $corpus;

my @files;
find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.(?:vcf|vcard)$/i && -f } }, $corpus);
@files = sort @files;
plan skip_all => 'CONTACTSYNC_CORPUS holds no vCards' unless @files;

# BEGIN:VCARD at the start of a line, but not where an AGENT's card begins.
sub count_cards
{
	my ($bytes) = @_;
	my ($cards, $depth, $agent) = (0, 0, 0);
	if ($bytes =~ /^(?:\xFF\xFE|\xFE\xFF)/)    { $bytes = encode('UTF-8', decode('UTF-16', $bytes)) }
	elsif ($bytes =~ /^\0B/)                   { $bytes = encode('UTF-8', decode('UTF-16BE', $bytes)) }
	elsif ($bytes =~ /^B\0/)                   { $bytes = encode('UTF-8', decode('UTF-16LE', $bytes)) }
	for my $line (split /\r\r?\n|\n|\r/, $bytes)
	{
		$line =~ s/^(?:\xEF\xBB\xBF|\s)+//;
		next if $line eq '';
		if ($line =~ /^BEGIN\s*:\s*VCARD\s*$/i)
		{
			if ($agent) { $depth++ }
			else { $cards++; $depth = 0 }
		}
		elsif ($line =~ /^END\s*:\s*VCARD\s*$/i && $depth > 0) { $depth-- }
		elsif ($line =~ /^AGENT[^:]*:\s*BEGIN:VCARD\s*$/i)     { $depth++ }
		$agent = $line =~ /^AGENT[^:]*:\s*$/i;
	}
	return $cards;
}

my $node = PostgreSQL::Test::Cluster->new('vcard');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off");
$node->start;

my $sql = "SET client_min_messages = warning; CREATE EXTENSION contactsync; CREATE TABLE files (id integer, bytes bytea);\n";
my @expected;
for my $i (0 .. $#files)
{
	my $bytes = slurp_file($files[$i]);
	push @expected, count_cards($bytes);
	$sql .= "INSERT INTO files VALUES ($i, '\\x" . unpack('H*', $bytes) . "');\n";
}
$node->safe_psql('postgres', $sql);
note(scalar(@files) . " files in $corpus");

my $counts = $node->safe_psql('postgres', q{
	SET client_min_messages = warning;
	SELECT id, (SELECT count(*) FROM contactsync.from_vcard(bytes)) FROM files ORDER BY id});
my %rows = map { split /\|/ } split /\n/, $counts;
my @wrong = map { "$files[$_]: $rows{$_} of $expected[$_]" } grep { $rows{$_} != $expected[$_] } 0 .. $#files;
is(join("\n", @wrong), '', 'every card of every file is read once');

for my $version ('4.0', '3.0')
{
	my $differ = $node->safe_psql('postgres', qq{
		SET client_min_messages = warning;
		SELECT DISTINCT id FROM (
			SELECT id, c, to_jsonb(ARRAY(SELECT r::text FROM contactsync.from_vcard(contactsync.to_vcard(c, '$version')) r)) AS back
			FROM files, contactsync.from_vcard(bytes) c) b
		WHERE jsonb_array_length(back) <> 1 OR (back ->> 0)::contactsync.contact OPERATOR(contactsync.<>) c
		ORDER BY id});
	is(join("\n", map { $files[$_] } split /\n/, $differ), '', "written in version $version, they read back equal");
}

is($node->safe_psql('postgres', q{
	SET client_min_messages = warning;
	SELECT count(*) FROM files, contactsync.from_vcard(bytes) c
	WHERE NOT contactsync.contact_identical(c, c::text::contactsync.contact)}), '0', 'contacts of vCards are canonical');

$node->stop;
done_testing();
