# How an address book is found: from the name of a server by /.well-known/carddav, through
# principal and home, and on another host of the same provider.  Stand-ins answer as iCloud
# and Fastmail are said to; the cards come from Radicale.  Credentials go nowhere else.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('discovery');
my ($radicale, $books) = start_radicale("$dir/radicale");
my ($entry, $port) = start_stand_in("$dir/entry");
my ($other, $other_port) = start_stand_in("$dir/other");
my $host = $books =~ s{http://}{}r;

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
my $n = 0;
sub run_source
{
	return sql("SELECT sync('$_[0]') AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\nSELECT concat_ws(' ', :'state', error_code, items) FROM runs WHERE id = :run");
}
# A source at the entry (or at a path of it), read once: what came of it.
sub find
{
	my ($path, %more) = @_;
	my $name = 's' . ++$n;
	my $settings = encode_json({ url => "http://127.0.0.1:$port$path", poll => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true, %more });
	sql(qq{SELECT add_source('$name', 'carddav', '$settings', '{"username": "ann", "password": "pw"}')});
	return run_source($name);
}
sub error { return sql('SELECT error FROM runs ORDER BY id DESC LIMIT 1') }
sub answers { rule($port, op => 'answers', answers => [@_]); rule($port, op => 'log') }
sub asked { return join(' ', map { "$_->[1]" . ($_->[2] ? '' : '!') } @{ rule($port, op => 'log')->{requests} }) }
sub stolen { return scalar(@{ rule($other_port, op => 'log')->{requests} }) }
sub redirect { my ($from, $to, $status) = @_; return { method => 'PROPFIND', path => $from, status => $status // 301, headers => { Location => $to } } }
# A multistatus of [href, properties, ...].
sub status
{
	my ($method, $path, @more) = @_;
	my $match = ref $more[0] ? '' : shift @more;
	return { method => $method, path => $path, match => $match, body => qq{<?xml version="1.0"?><multistatus xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:carddav">}
		. join('', map { "<response><href>$_->[0]</href><propstat><prop>$_->[1]</prop><status>HTTP/1.1 200 OK</status></propstat></response>" } grep { ref } @more)
		. join('', grep { !ref } @more) . '</multistatus>' };
}
sub principal { return "<current-user-principal><href>$_[0]</href></current-user-principal>" }
sub home { return "<C:addressbook-home-set><href>$_[0]</href></C:addressbook-home-set>" }
my $is_book = '<resourcetype><collection/><C:addressbook/></resourcetype>';
my $is_folder = '<resourcetype><collection/></resourcetype>';

sql('CREATE EXTENSION contactsync');
is(dav('PUT', "$books/ann/contacts/", join('', map { card("u$_", "First$_", "Last$_", "EMAIL:p$_\@x.org") } 1 .. 7)), 201, 'an address book');

# ---- as iCloud: the home is on another host ----
my @cloud = (redirect('/.well-known/carddav', '/'), status('PROPFIND', '/', [ '/', principal('/42/principal/') . $is_folder ]),
	status('PROPFIND', '/42/principal/', [ '/42/principal/', home("$books/ann/") ]));
answers(@cloud);
is(find(''), 'failed 08P01 0', 'a home on a host that nobody has named: ' . error());
like(error(), qr/leads to another server: \Q$host\E$/, 'which is named');
is(asked(), '/.well-known/carddav / /42/principal/', 'it was found by these steps');
is(find('', trusted_hosts => [$host]), 'succeeded 7', 'once it is named') or diag(error());
my $source = "s$n";
is(sql("SELECT \"cursor\" ->> 'collection' FROM sources WHERE name = '$source'"), "$books/ann/contacts/", 'the address book is there');
answers();
my $card = sql("SELECT source_id FROM records WHERE source = '$source' AND state ->> 'last_name' = 'Last3'");
like(dav('PUT', "$books/ann/contacts/$card", card('u3', 'First3', 'Last3', 'EMAIL:p3@x.org', 'TITLE:CTO')), qr/^20[14]$/, 'a card is changed');
is(run_source($source), 'succeeded 1', 'the next read') or diag(error());
is(sql(q{SELECT title FROM directory WHERE last_name = 'Last3'}), 'CTO', 'goes there');
is(asked(), '', 'without asking the way again');
like(dav('PUT', "$books/ann/contacts/$card", card('u3', 'First3', 'Last3', 'EMAIL:p3@x.org', 'TITLE:CEO')), qr/^20[14]$/, 'a card is changed again');
sql("SELECT fetch_records('$source', ARRAY['$card'])");
ok($node->poll_query_until('postgres', q{SELECT title = 'CEO' FROM contactsync.directory WHERE last_name = 'Last3'}), 'single records are read there, too');
answers(@cloud);
my ($wild) = $host =~ /^127(.*)$/;
is(find('', trusted_hosts => [ '*.example.com', "*$wild" ]), 'succeeded 7', 'hosts of a domain') or diag(error());
is(find('', trusted_hosts => [$_]), 'failed 08P01 0', "but not by $_") for '127.0.0.1', '*.0.0.1', "0.0.1:" . $host =~ s/.*://r, "*.$host";

# ---- what is no host ----
for my $bad ('"a.example"', '[5]', '[""]', '["*"]', '["*.com"]', '["https://a.example"]', '["a.example/x"]', '["*.*.example"]', '["a..example"]', '["user@a.example"]')
{
	my ($rc, $out, $err) = $node->psql('postgres', qq{SELECT contactsync.add_source('bad', 'carddav', '{"url": "https://a.example", "trusted_hosts": $bad}')});
	like($err, qr/invalid setting "trusted_hosts"/, "refused: $bad");
}
is(sql(q{SELECT string_agg(concat_ws(' ', name, spec ->> 'driver', spec ->> 'url', spec ->> 'trusted_hosts'), ', ' ORDER BY name) FROM connectors WHERE name IN ('icloud', 'fastmail')}),
	'fastmail carddav https://carddav.fastmail.com, icloud carddav https://contacts.icloud.com ["*.icloud.com"]', 'connectors name the hosts of their providers');
is(sql(q{SELECT count(DISTINCT spec -> 'write') FROM connectors WHERE name IN ('carddav', 'icloud', 'fastmail') HAVING count(*) = 3}), '1', 'and write as carddav does');
sql(q{SELECT add_connector('trusting', jsonb_build_object('driver', 'carddav', 'trusted_hosts', jsonb_build_array('} . $host . q{')))});
my $settings = encode_json({ url => "http://127.0.0.1:$port", poll => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true });
sql(qq{SELECT add_source('by-connector', 'trusting', '$settings', '{"username": "ann", "password": "pw"}')});
is(run_source('by-connector'), 'succeeded 7', 'and that is enough') or diag(error());

# ---- as Fastmail: redirects to a path, all on one host ----
my @one = (status('PROPFIND', '/dav/addressbooks/user/ann/Default/', [ '/dav/addressbooks/user/ann/Default/', $is_book ]),
	status('PROPFIND', '/dav/principals/user/ann/', [ '/dav/principals/user/ann/', home('/dav/addressbooks/user/ann/') ]),
	status('PROPFIND', '/dav/addressbooks/user/ann/', [ '/dav/addressbooks/user/ann/', $is_folder ], [ '/dav/addressbooks/user/ann/Default/', $is_book ]),
	status('REPORT', '/dav/addressbooks/user/ann/Default/', 'sync-collection', [ '/dav/addressbooks/user/ann/Default/1.vcf', '<getetag>"1"</getetag>' ], '<sync-token>urn:1</sync-token>'),
	status('REPORT', '/dav/addressbooks/user/ann/Default/', 'multiget', [ '/dav/addressbooks/user/ann/Default/1.vcf', '<getetag>"1"</getetag><C:address-data>' . card('f1', 'Fast', 'Mail') . '</C:address-data>' ]));
for my $code (301, 302, 307, 308)
{
	answers(redirect('/.well-known/carddav', $code == 302 ? "http://127.0.0.1:$port/dav/principals/user/ann/" : '/dav/principals/user/ann/', $code), @one);
	is(find(''), 'succeeded 1', "a redirect by $code") or diag(error());
}
is(asked(), join(' ', '/.well-known/carddav', '/dav/principals/user/ann/', ('/dav/addressbooks/user/ann/') , ('/dav/addressbooks/user/ann/Default/') x 2), 'step by step');
is(find('/dav/addressbooks/user/ann/Default'), 'succeeded 1', 'the URL of the book itself') or diag(error());
is(asked() =~ /well-known/ ? 1 : 0, 0, 'is asked itself');

# ---- servers that do not know of /.well-known ----
for my $answer ([ 404 ], [ 405 ], [ 403 ], [ 401 ], [ 400 ], [ 410 ], [ 500 ], [ 501 ], [ 200 ], [ 204 ], [ 302, "http://127.0.0.1:$other_port/login" ], [ 301, 'https://www.example.com/' ], [ 302, '/login' ], [ 302, '::::' ])
{
	my ($code, $location) = @$answer;
	answers({ method => 'PROPFIND', path => '/.well-known/carddav', status => $code, headers => { $location ? (Location => $location) : (), 'Content-Type' => 'text/html' }, body => $code == 204 ? '' : '<html>Hello</html>' },
		status('PROPFIND', '/', [ '/', principal('/dav/principals/user/ann/') ]), @one);
	is(find(''), 'succeeded 1', "$code" . ($location ? " $location" : '') . ': the root is asked') or diag(error());
}
is(stolen(), 0, 'and nobody else');

# ---- what leads nowhere, or elsewhere ----
answers(redirect('/.well-known/carddav', "http://127.0.0.1:$other_port/dav/"));
is(find(''), 'failed 08P01 0', 'another server: ' . error());
like(error(), qr/on another one: 127\.0\.0\.1:$other_port$/, 'which is named');
answers(redirect('/.well-known/carddav', '/a/'), redirect('/a/', "http://127.0.0.1:$other_port/dav/"));
is(find(''), 'failed 08P01 0', 'a step later: ' . error());
answers(status('PROPFIND', '/.well-known/carddav', [ '/', principal("http://127.0.0.1:$other_port/ann/") ]));
is(find(''), 'failed 08P01 0', 'a principal elsewhere: ' . error());
answers(status('PROPFIND', '/.well-known/carddav', [ '/', home('/h/') ]), status('PROPFIND', '/h/', [ "http://127.0.0.1:$other_port/book/", $is_book ]));
is(find(''), 'failed 08P01 0', 'a book elsewhere: ' . error());
answers(status('PROPFIND', '/.well-known/carddav', [ '/', home('/h/') ]), status('PROPFIND', '/h/', [ '/h/b/', $is_book ]),
	status('REPORT', '/h/b/', 'sync-collection', [ "http://127.0.0.1:$other_port/h/b/1.vcf", '<getetag>"1"</getetag>' ], '<sync-token>urn:1</sync-token>'));
is(find(''), 'failed 08P01 0', 'a card elsewhere: ' . error());
is(stolen(), 0, 'gets no request, and so no credentials');
answers(redirect('/.well-known/carddav', '/a'), redirect('/a', '/b'), redirect('/b', '/a'));
is(find(''), 'failed 08P01 0', 'in a circle: ' . error());
cmp_ok(scalar(split / /, asked()), '<=', 9, 'is given up');
answers(status('PROPFIND', '/.well-known/carddav', [ '/', $is_folder ]));
is(find(''), 'failed 08P01 0', 'nothing there: ' . error());

# ---- several address books ----
answers(redirect('/.well-known/carddav', '/p/'), status('PROPFIND', '/p/', [ '/p/', home('/h/') ]), status('PROPFIND', '/h/', [ '/h/', $is_folder ], [ '/h/one/', $is_book ], [ '/h/calendar/', $is_folder ], [ '/h/two/', $is_book ]));
is(find(''), 'failed 08P01 0', 'several: ' . error());
like(error(), qr{2 address books.*/h/one/, /h/two/}, 'are named');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$node->stop;
$_->kill_kill for $entry, $other, $radicale;
done_testing();
