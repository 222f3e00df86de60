# The connector scim against scimmy, a SCIM server that nobody here wrote: what it
# holds is what is here, however it pages, whatever changes meanwhile.
use strict;
use warnings;
use Encode qw(encode_utf8);
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('scim', 'contactsync.http_retries = 2');
my ($server, $port) = start_peers($dir);
spew("$dir/token", "static token\n");

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
# A run and what came of it.
sub run_source
{
	my ($source, $full) = @_;
	my $call = $full ? "sync('$source', true)" : "sync('$source')";
	my $result = sql("SELECT $call AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\n"
		. "SELECT concat_ws(' ', :'state', coalesce(error_code, '-'), kind, cause, CASE WHEN certified THEN 'certified' END) FROM runs WHERE id = :run");
	# what it did not show is counted once all that it brought is applied
	$node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM contactsync.runs WHERE certified AND NOT certificate_applied)') or die 'a certificate is not applied';
	return $result;
}
sub last_error { return sql('SELECT error FROM runs ORDER BY id DESC LIMIT 1') }
sub last_run { return sql("SELECT $_[0] FROM runs ORDER BY id DESC LIMIT 1") }
sub source
{
	my ($name, $connector, %more) = @_;
	my $settings = encode_json({ url => "http://127.0.0.1:$port/scim", poll => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true, %more });
	return sql(qq{SELECT add_source('$name', '$connector', '$settings', '{"token": {"file": "$dir/token"}}')});
}
sub differences
{
	my @lines;
	for my $pair (@_)
	{
		my ($there, $here) = map { my %lines = map { $_ => 1 } split /\n/; \%lines } @$pair;
		push @lines, map { "only there: $_" } grep { !$here->{$_} } sort keys %$there;
		push @lines, map { "only here: $_" } grep { !$there->{$_} } sort keys %$here;
	}
	return join("\n", @lines);
}
# What the server holds, and what is here of it: as records with their versions, and as contacts.
sub same
{
	my ($source, $name, $wanted) = @_;
	my $primary = q{jsonb_path_query_first(%s, '$[*] ? (@.primary == true).address') #>> '{}'};
	my @held = grep { !$wanted || $wanted->($_) } @{ peer(op => 'held') };
	my $text = sub { join("\n", sort @_) };
	my $there = $text->(map { encode_utf8(join('|', $_->{id}, $_->{name}{givenName} // '', $_->{name}{familyName} // $_->{displayName} // '', $_->{emails}[0]{value} // '', $_->{title} // '')) } @held);
	my $records = $text->(split /\n/, sql(qq{SELECT concat_ws('|', source_id, coalesce(state ->> 'first_name', ''), coalesce(state ->> 'last_name', ''),
		coalesce(} . sprintf($primary, q{state -> 'emails'}) . qq{, ''), coalesce(state ->> 'title', '')) FROM records WHERE source = '$source' AND alive}));
	my $contacts = $text->(split /\n/, sql(qq{SELECT concat_ws('|', s.x ->> 'source_id', coalesce(d.first_name, ''), coalesce(d.last_name, ''),
		coalesce(} . sprintf($primary, 'd.emails') . qq{, ''), coalesce(d.title, '')) FROM directory d, LATERAL jsonb_array_elements(d.sources) s (x) WHERE s.x ->> 'source' = '$source'}));
	my $versions = $text->(map { "$_->{id} " . ($_->{meta}{lastModified} =~ s/\.?0*Z$//r) } @held);
	my $ours = $text->(split /\n/, sql(qq{SELECT source_id || ' ' || regexp_replace(to_char(version AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '[.]?0*\$', '')
		FROM records WHERE source = '$source' AND alive}));
	is(differences([ $there, $records ], [ $there, $contacts ], [ $versions, $ours ]), '', $name);
}
my $user = 'urn:ietf:params:scim:schemas:core:2.0:User';
my $enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
my $patch = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';

sql('CREATE EXTENSION contactsync');

# ---- the first read: pages that hold less than was asked for ----
peer(op => 'set', maxResults => 70);
# they have been there for a while
peer(op => 'clock', at => '2026-01-02T03:04:05.678Z');
my @ids = @{ peer(op => 'users', count => 450)->{ids} };
peer(op => 'clock');
source('idp', 'scim');
is(run_source('idp'), 'succeeded - full request certified', 'the first read') or diag(last_error());
is(last_run('pages, items'), '7|450', 'goes on by as many as came');
same('idp', 'everybody is here');
is(scalar(grep { $_->{url} =~ /startIndex=(1|71|141|211|281|351|421)&|startIndex=(1|71|141|211|281|351|421)$/ } @{ peer(op => 'log')->{requests} }), 7, 'each page once');

# ---- what a user may have ----
my ($status, $made) = scim('POST', '/Users', { schemas => [ $user, $enterprise ], userName => 'zoe', externalId => 'x7', nickName => 'Zo', displayName => "Zo\x{eb} Q. \x{c5}ngstr\x{f6}m", title => 'CTO',
	profileUrl => 'https://scim.example/zoe', locale => 'sv-SE', timezone => 'Europe/Stockholm', active => JSON::PP::true, userType => 'Employee', preferredLanguage => 'sv',
	name => { givenName => "Zo\x{eb}", middleName => 'Q.', familyName => "\x{c5}ngstr\x{f6}m", honorificPrefix => 'Dr.', honorificSuffix => 'III' },
	emails => [ { value => 'zoe@scim.example', type => 'work', primary => JSON::PP::true }, { value => 'zoe@home.example', type => 'home' } ],
	phoneNumbers => [ { value => 'tel:+46-8-123-456-78', type => 'work' }, { value => 'tel:+46-70-174-06-05', type => 'mobile', primary => JSON::PP::true } ],
	addresses => [ { streetAddress => 'Storgatan 1', locality => 'Stockholm', region => 'S', postalCode => '111 22', country => 'SE', type => 'work' } ],
	photos => [ { value => 'https://scim.example/zoe.png', type => 'photo' } ], ims => [ { value => 'zoe', type => 'xmpp' } ],
	$enterprise => { organization => 'Acme', department => 'R&D', employeeNumber => '42', costCenter => 'c1', division => 'd1', manager => { value => 'm1' } } });
is($status, 201, 'somebody new');
my $zoe = $made->{id};
scim('POST', '/Users', { schemas => [ $user ], userName => 'nameless', displayName => 'Madame X' });
is(run_source('idp'), 'succeeded - full request certified', 'is read');
same('idp', 'with the others');
is_deeply(decode_json(sql("SELECT to_jsonb(contact #- '{_provenance}') FROM (SELECT contact::text::jsonb AS contact FROM directory WHERE first_name = 'Zo\xC3\xAB') d")),
	{ first_name => "Zo\x{eb}", middle_name => 'Q.', last_name => "\x{c5}ngstr\x{f6}m", prefix => 'Dr.', suffix => 'III', nickname => 'Zo', title => 'CTO', company => 'Acme', department => 'R&D',
	photo => 'https://scim.example/zoe.png', urls => [ { url => 'https://scim.example/zoe', type => 'profile' } ],
	emails => [ { address => 'zoe@home.example', type => 'home' }, { address => 'zoe@scim.example', type => 'work', primary => JSON::PP::true } ],
	phones => [ { number => '+46-70-174-06-05', type => 'mobile', primary => JSON::PP::true }, { number => '+46-8-123-456-78', type => 'work' } ],
	addresses => [ { street => 'Storgatan 1', city => 'Stockholm', region => 'S', postal_code => '111 22', country => 'SE', type => 'work' } ],
	metadata => { scim_user_name => 'zoe', scim_active => JSON::PP::true, scim_display_name => "Zo\x{eb} Q. \x{c5}ngstr\x{f6}m", scim_external_id => 'x7', scim_user_type => 'Employee', scim_locale => 'sv-SE',
		scim_timezone => 'Europe/Stockholm', scim_ims => [ { value => 'zoe', type => 'xmpp' } ], scim_employee_number => '42', scim_cost_center => 'c1', scim_division => 'd1', scim_manager => 'm1', scim_preferredLanguage => 'sv' } },
	'with all there is of her');
is(sql(q{SELECT normalize_phone(p.x ->> 'number') FROM directory, LATERAL jsonb_array_elements(phones) p (x) WHERE nickname = 'Zo' ORDER BY 1}), "+46701740605\n+46812345678", 'and numbers that can be dialled');
is(sql(q{SELECT count(*) FROM directory WHERE last_name = 'Madame X' AND first_name IS NULL}), '1', 'who has no name but the one that is shown has that');

# ---- changes: what is patched, put, and deactivated ----
my $observations = sql('SELECT count(*) FROM observations');
is((scim('PATCH', "/Users/$zoe", { schemas => [$patch], Operations => [
	{ op => 'replace', path => 'title', value => 'CEO' }, { op => 'add', path => 'emails', value => [ { value => 'zoe@new.example', type => 'other' } ] },
	{ op => 'remove', path => 'emails[type eq "home"]' }, { op => 'replace', path => 'active', value => JSON::PP::false } ] }))[0], 200, 'somebody is patched');
my (undef, $third) = scim('GET', "/Users/$ids[2]");
$third->{name}{familyName} = 'Put';
delete $third->{emails};
is((scim('PUT', "/Users/$ids[2]", $third))[0], 200, 'and somebody put');
is(run_source('idp'), 'succeeded - full request certified', 'the next read');
same('idp', 'knows');
is(sql(q{SELECT title, emails, metadata ->> 'scim_active' FROM directory WHERE nickname = 'Zo'}),
	'CEO|[{"type": "other", "address": "zoe@new.example"}, {"type": "work", "address": "zoe@scim.example", "primary": true}]|false', 'what was patched');
is(sql('SELECT count(*) FROM observations') - $observations, 2, 'who did not change is not observed again');

# ---- deletes: absence, and a 404 ----
my $known = sql('SELECT count(*) FROM directory');
is((scim('DELETE', "/Users/$_"))[0], 204, 'deleted') for @ids[ 10 .. 12 ];
is(run_source('idp'), 'succeeded - full request certified', 'who is absent, and is asked for');
ok($node->poll_query_until('postgres', 'SELECT count(*) = ' . ($known - 3) . ' FROM contactsync.directory'), 'is deleted');
same('idp', 'and nobody else');

# ---- what pages of a list that shifts leave out is not lost ----
peer(op => 'fault', match => 'startIndex=141', remove => $ids[20], times => 1);
is(run_source('idp'), 'succeeded - full request certified', 'somebody goes while it is read');
ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM contactsync.fetches)'), 'another one is passed over, and asked for');
is(last_run('missed'), '0', 'who turns out to be there');
peer(op => 'fault');
is(run_source('idp'), 'succeeded - full request certified', 'the next read') for 1 .. 2;
ok($node->poll_query_until('postgres', "SELECT NOT alive FROM contactsync.records WHERE source = 'idp' AND source_id = '$ids[20]'"), 'knows who it was');
same('idp', 'and nobody is lost');

# ---- a list that is empty, or cut short ----
for my $empty ('{"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": 0}',
	'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": 0, "startIndex": 1, "itemsPerPage": 0, "Resources": []}')
{
	peer(op => 'fault', match => '/scim/Users', body => $empty, times => 1, headers => { 'Content-Type' => 'application/scim+json' });
	is(run_source('idp'), 'succeeded - full request certified', 'an empty list' . ($empty =~ /Resources"/ ? '' : ', left out'));
	is(last_run('items'), '0', 'has nobody');
	peer(op => 'fault');
}
ok($node->poll_query_until('postgres', 'SELECT certificate_applied FROM contactsync.runs ORDER BY id DESC LIMIT 1'), 'twice');
is(last_run('held_deletes > 400'), 't', 'which is not believed');
same('idp', 'everybody is still there');
sql('SELECT reject_run((SELECT max(id) FROM runs))');
peer(op => 'fault', match => 'startIndex=71', body => '{"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": 448, "startIndex": 71, "itemsPerPage": 0, "Resources": []}', times => 1);
is(run_source('idp'), 'failed 08P01 full request', 'a list that ends too early: ' . last_error());
peer(op => 'fault');

# ---- documents of errors ----
my $error = sub { encode_json({ schemas => ['urn:ietf:params:scim:api:messages:2.0:Error'], status => "$_[0]", detail => 'of ann@scim.example', $_[1] ? (scimType => $_[1]) : () }) };
for my $case ([ 400, 'invalidFilter', 'failed 08P01' ], [ 403, undef, 'failed 28000' ], [ 404, undef, 'failed 08P01' ], [ 500, undef, 'failed 08006' ], [ 413, 'tooMany', 'failed 08P01' ])
{
	my ($code, $type, $wanted) = @$case;
	peer(op => 'fault', match => '/scim/Users', status => $code, body => $error->($code, $type), headers => { 'Content-Type' => 'application/scim+json' });
	is(run_source('idp'), "$wanted full request", "$code: " . last_error());
	peer(op => 'fault');
	sql(q{SELECT resume_source('idp')});
}
peer(op => 'log');
peer(op => 'fault', match => '/scim/Users', status => 429, body => $error->(429), times => 2, headers => { 'Content-Type' => 'application/scim+json', 'Retry-After' => '1' });
is(run_source('idp'), 'succeeded - full request certified', 'one who is asked to wait waits');
is(scalar(@{ peer(op => 'log')->{requests} }), 9, 'and asks again');
peer(op => 'fault');
spew("$dir/token", "another token\n");
is(run_source('idp'), 'failed 28000 full request', 'another token: ' . last_error());
is(sql(q{SELECT state FROM status WHERE source = 'idp'}), 'stopped', 'stops the source');
spew("$dir/token", "static token\n");
sql(q{SELECT resume_source('idp')});

# ---- filters: some of them only, and what was modified ----
scim('PATCH', "/Users/$_", { schemas => [$patch], Operations => [ { op => 'add', path => 'userType', value => 'Contractor' } ] }) for @ids[ 100 .. 119 ];
source('some', 'scim', parameters => { filter => 'userType eq "Contractor"', page_size => '15' });
is(run_source('some'), 'succeeded - full request certified', 'a filter') or diag(last_error());
is(last_run('items, pages'), '20|2', 'limits what is read');
same('some', 'to some', sub { ($_[0]{userType} // '') eq 'Contractor' });
source('odd', 'scim', parameters => { filter => 'no such filter' });
is(run_source('odd'), 'failed 08P01 full request', 'one that the server does not know: ' . last_error());
# as doc/connectors.md has it
sql(q{SELECT add_connector('scim-modified', spec || jsonb_build_object(
	'changes', jsonb_build_array(jsonb_set(spec -> 'list', '{query,filter}', '"meta.lastModified ge \"{since}\""')),
	'lost', '{"codes": ["invalidFilter"]}'::jsonb, 'full_every', '1 day')) FROM connectors WHERE name = 'scim'});
source('quick', 'scim-modified');
is(run_source('quick'), 'succeeded - full request certified', 'where the server filters by time');
same('quick', 'the first read is full');
scim('PATCH', "/Users/$ids[40]", { schemas => [$patch], Operations => [ { op => 'Replace', path => 'title', value => 'Boss' } ] });
is(run_source('quick'), 'succeeded - incremental request', 'the next ones') or diag(last_error());
cmp_ok(last_run('items'), '<', 30, 'only what is new: ' . last_run('items'));
same('quick', 'and it is here');
peer(op => 'fault', match => 'filter=meta', status => 400, body => $error->(400, 'invalidFilter'), headers => { 'Content-Type' => 'application/scim+json' });
is(run_source('quick'), 'succeeded - full cursor lost certified', 'a server that does not filter is read in full');
same('quick', 'all the same');
peer(op => 'fault');
is(run_source('idp'), 'succeeded - full request certified', 'at the end');
same('idp', 'all is as it is there');
is(sql('SELECT count(*) FROM verify()'), '0', 'and follows from what was said');

my $log = slurp_file($node->logfile);
unlike($log, qr/static token|another token|ann\@scim/, 'neither a token nor what the server says of people is in the log');
unlike(sql("SELECT string_agg(error, ' ') FROM runs"), qr/scim\.example/, 'nor in the runs');
unlike($log, qr/TRAP|PANIC/, 'no assertion failed');
$node->stop;
$server->kill_kill;
done_testing();
