//! Where on a KMS's HTTP server its messages go. RFC 6043 section 7 leaves the transport to others,
//! and 3GPP's texts on it could not be had, so all of it can be set.

/// Request-URI of the two exchanges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpBinding {
    path: String,
    /// Parameters of the query, in their order.
    parameters: Vec<(String, Value)>,
    request: String,
    resolve: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Fixed(String),
    /// What names the exchange.
    Exchange,
}

/// What a message to a KMS is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    /// Ticket request.
    Request,
    /// Ticket resolve.
    Resolve,
}

impl Exchange {
    /// By the data type of the initial message (RFC 6043 section 6.1).
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        match message.get(1)? {
            // REQUEST_INIT_PSK and REQUEST_INIT_PK.
            11 | 12 => Some(Self::Request),
            // RESOLVE_INIT_PSK and RESOLVE_INIT_PK.
            16 | 17 => Some(Self::Resolve),
            _ => None,
        }
    }
}

impl HttpBinding {
    /// Reads a template such as `/keymanagement?requesttype={type}`, where `{type}` stands for
    /// `request` or `resolve`. Without it the messages say themselves what they are.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(template: &str, request: &str, resolve: &str) -> Result<Self, &'static str> {
        let (path, query) = template.split_once('?').unwrap_or((template, ""));
        if !path.starts_with('/') || path.contains(['{', '}']) {
            return Err("a path begins with / and has no {type} in it");
        }
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if ![template, request, resolve].into_iter().all(visible) || template.contains('#') {
            return Err("blanks, # and characters beyond ASCII do not stand in a Request-URI");
        }
        if [request, resolve].into_iter().any(|word| word.is_empty() || word.contains(['&', '?'])) {
            return Err("a word for an exchange is not empty and has neither & nor ?");
        }
        if request == resolve {
            return Err("both exchanges have the same word");
        }
        let mut parameters = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = match value {
                PLACE => Value::Exchange,
                value if value.contains(['{', '}']) => return Err("{type} is a whole value"),
                value => Value::Fixed(value.to_owned()),
            };
            parameters.push((name.to_owned(), value));
        }
        let (path, request, resolve) = (path.to_owned(), request.to_owned(), resolve.to_owned());
        Ok(Self { path, parameters, request, resolve })
    }

    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The Request-URI for an exchange, without scheme and host.
    #[must_use]
    pub fn target(&self, exchange: Exchange) -> String {
        let mut target = self.path.clone();
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.push_str(self.value(value, exchange));
        }
        target
    }

    /// Whether a query is one for this exchange. It may have more parameters than it must.
    #[must_use]
    pub fn is_for(&self, query: Option<&str>, exchange: Exchange) -> bool {
        let given = |name: &str| {
            let mut parameters = query.unwrap_or_default().split('&');
            parameters.find_map(|parameter| {
                let (its, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                (its == name).then_some(value)
            })
        };
        let same =
            |(name, value): &(String, Value)| given(name) == Some(self.value(value, exchange));
        self.parameters.iter().all(same)
    }

    fn value<'a>(&'a self, value: &'a Value, exchange: Exchange) -> &'a str {
        match (value, exchange) {
            (Value::Fixed(text), _) => text,
            (Value::Exchange, Exchange::Request) => &self.request,
            (Value::Exchange, Exchange::Resolve) => &self.resolve,
        }
    }
}

const PLACE: &str = "{type}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_says_where_messages_go_and_come() {
        let parse = |template| HttpBinding::parse(template, "ask", "open");
        let binding = parse("/a/b?v=2&type={type}").expect("good");
        assert_eq!(binding.path(), "/a/b");
        assert_eq!(binding.target(Exchange::Request), "/a/b?v=2&type=ask");
        assert!(binding.is_for(Some("type=open&x=1&v=2"), Exchange::Resolve));
        for query in [None, Some("type=ask&v=2"), Some("type=open"), Some("type=open&v=3")] {
            assert!(!binding.is_for(query, Exchange::Resolve), "{query:?}");
        }
        let bare = parse("/kms").expect("good");
        assert!(bare.is_for(None, Exchange::Request) && bare.is_for(Some("x"), Exchange::Resolve));
        assert_eq!(bare.target(Exchange::Resolve), "/kms");
        for wrong in ["kms", "/{type}", "/k?type=x{type}", "/k k", "/k#f", ""] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(HttpBinding::parse("/k", "same", "same").is_err());
    }
}
