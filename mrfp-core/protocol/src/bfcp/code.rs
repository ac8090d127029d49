//! The code points of RFC 8855 section 15, with the names it gives them.

/// Declares an enumeration of code points, each with its name on paper.
macro_rules! codes {
    ($(#[doc = $doc:literal])+ $kind:ident { $($(#[doc = $help:literal])+ $variant:ident = $code:literal $name:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $kind { $($(#[doc = $help])+ $variant = $code,)+ }

        impl $kind {
            /// Every one, by code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The one with that code; `None` where RFC 8855 knows none.
            #[must_use]
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its code on the wire.
            #[must_use]
            pub fn code(self) -> u8 {
                self as u8
            }

            /// Its name in RFC 8855.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

codes! {
    /// What a message is for (RFC 8855 section 5.1, table 1).
    Primitive {
        /// Asks for one floor or several.
        FloorRequest = 1 "FloorRequest",
        /// Gives floors back, or gives a request up.
        FloorRelease = 2 "FloorRelease",
        /// Asks what became of a request.
        FloorRequestQuery = 3 "FloorRequestQuery",
        /// Says what became of a request.
        FloorRequestStatus = 4 "FloorRequestStatus",
        /// Asks about a user and its requests.
        UserQuery = 5 "UserQuery",
        /// Tells of a user and its requests.
        UserStatus = 6 "UserStatus",
        /// Asks about floors, and to be kept informed.
        FloorQuery = 7 "FloorQuery",
        /// Tells of a floor and the requests for it.
        FloorStatus = 8 "FloorStatus",
        /// A chair's decision.
        ChairAction = 9 "ChairAction",
        /// Takes note of a chair's decision.
        ChairActionAck = 10 "ChairActionAck",
        /// Asks whether the server is there, and what it can do.
        Hello = 11 "Hello",
        /// It is there, and can do this.
        HelloAck = 12 "HelloAck",
        /// A request was not carried out.
        Error = 13 "Error",
        /// A FloorRequestStatus has arrived (version 2).
        FloorRequestStatusAck = 14 "FloorRequestStatusAck",
        /// A FloorStatus has arrived (version 2).
        FloorStatusAck = 15 "FloorStatusAck",
        /// Ends an association (version 2).
        Goodbye = 16 "Goodbye",
        /// A Goodbye has arrived (version 2).
        GoodbyeAck = 17 "GoodbyeAck",
    }
}

codes! {
    /// What an attribute holds (RFC 8855 section 5.2, table 2).
    AttributeType {
        /// The user a floor is for.
        BeneficiaryId = 1 "BENEFICIARY-ID",
        /// A floor.
        FloorId = 2 "FLOOR-ID",
        /// A floor request.
        FloorRequestId = 3 "FLOOR-REQUEST-ID",
        /// How urgent a request is.
        Priority = 4 "PRIORITY",
        /// How far a request is.
        RequestStatus = 5 "REQUEST-STATUS",
        /// What went wrong.
        ErrorCode = 6 "ERROR-CODE",
        /// The same for people.
        ErrorInfo = 7 "ERROR-INFO",
        /// Why the participant wants the floor.
        ParticipantProvidedInfo = 8 "PARTICIPANT-PROVIDED-INFO",
        /// A word on a status, for people.
        StatusInfo = 9 "STATUS-INFO",
        /// Attributes a server knows.
        SupportedAttributes = 10 "SUPPORTED-ATTRIBUTES",
        /// Primitives a server knows.
        SupportedPrimitives = 11 "SUPPORTED-PRIMITIVES",
        /// What a user is called.
        UserDisplayName = 12 "USER-DISPLAY-NAME",
        /// Where a user is reached.
        UserUri = 13 "USER-URI",
        /// Group: who a floor is for.
        BeneficiaryInformation = 14 "BENEFICIARY-INFORMATION",
        /// Group: a request.
        FloorRequestInformation = 15 "FLOOR-REQUEST-INFORMATION",
        /// Group: who asked.
        RequestedByInformation = 16 "REQUESTED-BY-INFORMATION",
        /// Group: a request as it concerns one of its floors.
        FloorRequestStatus = 17 "FLOOR-REQUEST-STATUS",
        /// Group: a request as a whole.
        OverallRequestStatus = 18 "OVERALL-REQUEST-STATUS",
    }
}

codes! {
    /// How far a floor request is (RFC 8855 section 5.2.5, table 4).
    RequestStatus {
        /// A chair has to decide.
        Pending = 1 "Pending",
        /// It waits in the queue.
        Accepted = 2 "Accepted",
        /// The floor is held.
        Granted = 3 "Granted",
        /// It was refused.
        Denied = 4 "Denied",
        /// The participant gave it up.
        Cancelled = 5 "Cancelled",
        /// The participant gave the floor back.
        Released = 6 "Released",
        /// The floor was taken away.
        Revoked = 7 "Revoked",
    }
}

codes! {
    /// Why a request was not carried out (RFC 8855 section 5.2.6, table 5).
    ErrorCode {
        /// The conference ID is not known.
        ConferenceDoesNotExist = 1 "Conference Does Not Exist",
        /// The user ID is not known.
        UserDoesNotExist = 2 "User Does Not Exist",
        /// The primitive is not known, or not one for a server.
        UnknownPrimitive = 3 "Unknown Primitive",
        /// Its details list the attributes.
        UnknownMandatoryAttribute = 4 "Unknown Mandatory Attribute",
        /// The user may not do that.
        UnauthorizedOperation = 5 "Unauthorized Operation",
        /// There is no such floor.
        InvalidFloorId = 6 "Invalid Floor ID",
        /// There is no such request.
        FloorRequestIdDoesNotExist = 7 "Floor Request ID Does Not Exist",
        /// As many as the user may have are ongoing.
        MaximumRequestsReached = 8 "You have Already Reached the Maximum Number of Ongoing Floor Requests for This Floor",
        /// Not in the clear, over TCP.
        UseTls = 9 "Use TLS",
        /// It breaks the format.
        UnableToParse = 10 "Unable to Parse Message",
        /// Not in the clear, over UDP.
        UseDtls = 11 "Use DTLS",
        /// Not this version, or not on this transport.
        UnsupportedVersion = 12 "Unsupported Version",
        /// The payload length is wrong.
        IncorrectMessageLength = 13 "Incorrect Message Length",
        /// None of the others.
        GenericError = 14 "Generic Error",
    }
}

codes! {
    /// How urgent a floor request is (RFC 8855 section 5.2.4, table 3).
    Priority {
        /// Lowest.
        Lowest = 0 "Lowest",
        /// Low.
        Low = 1 "Low",
        /// Where none is given.
        Normal = 2 "Normal",
        /// High.
        High = 3 "High",
        /// Highest.
        Highest = 4 "Highest",
    }
}

impl Priority {
    /// As a receiver understands it: beyond Highest is Highest (RFC 8855 section 5.2.4).
    #[must_use]
    pub fn understood(code: u8) -> Self {
        Self::from_code(code).unwrap_or(Self::Highest)
    }
}

impl AttributeType {
    /// Whether it consists of attributes.
    #[must_use]
    pub fn is_grouped(self) -> bool {
        match self {
            Self::BeneficiaryInformation
            | Self::FloorRequestInformation
            | Self::RequestedByInformation
            | Self::FloorRequestStatus
            | Self::OverallRequestStatus => true,
            Self::BeneficiaryId
            | Self::FloorId
            | Self::FloorRequestId
            | Self::Priority
            | Self::RequestStatus
            | Self::ErrorCode
            | Self::ErrorInfo
            | Self::ParticipantProvidedInfo
            | Self::StatusInfo
            | Self::SupportedAttributes
            | Self::SupportedPrimitives
            | Self::UserDisplayName
            | Self::UserUri => false,
        }
    }
}
