"""The fields of OneSignal's request for a message that have no counterpart here, and what becomes of each."""

from __future__ import annotations

#: Who gets it; one of these is there.
TARGETS = (
    "include_aliases",
    "include_external_user_ids",
    "include_subscription_ids",
    "include_player_ids",
    "include_phone_numbers",
    "include_android_reg_ids",
    "included_segments",
    "filters",
)
#: Fields beside the targets that are read.
READ = (
    *("app_id", "excluded_segments", "target_channel", "channel_for_external_user_ids", "name", "contents", "headings"),
    *("subtitle", "data", "url", "web_url", "app_url", "template_id", "custom_data", "send_after", "delayed_option"),
    *("delivery_time_of_day", "ttl", "priority", "throttle_rate_per_minute", "external_id", "idempotency_key"),
    *(
        "sms_from",
        "sms_media_urls",
        "sms_fallback",
        "category",
        "ios_sound",
        "android_sound",
        "ios_badgeType",
        "ios_badgeCount",
    ),
    *("global_image", "big_picture", "chrome_web_image", "ios_attachments", "small_icon", "chrome_web_icon"),
    *("chrome_web_badge", "android_accent_color", "android_visibility", "android_channel_id"),
    *("existing_android_channel_id", "thread_id", "ios_category", "ios_interruption_level", "ios_relevance_score"),
    *("target_content_identifier", "mutable_content", "content_available", "isIos", "isAndroid", "isAnyWeb"),
)
_LOOKS = "changes how the push looks where it is served here in no way"
_ELSEWHERE = "is for a platform that is not served here"
#: Fields without which the same people get the same words → why; the answer warns of them.
COSMETIC = {
    "large_icon": "Android shows the picture of big_picture or global_image instead",
    "android_led_color": _LOOKS,
    "android_background_layout": _LOOKS,
    "android_group": "Android groups the app's notifications by itself",
    "android_group_message": "Android groups the app's notifications by itself",
    "summary_arg": "iOS has not shown it since iOS 15",
    "summary_arg_count": "iOS has not shown it since iOS 15",
    "collapse_id": "two pushes with one id are both shown; a repeat of the same message replaces itself",
    "web_push_topic": "two pushes with one topic are both shown; a repeat of the same message replaces itself",
    "enable_frequency_cap": "the limits of the installation always count",
    **dict.fromkeys(
        (
            *("huawei_msg_type", "huawei_big_picture", "huawei_channel_id", "huawei_existing_channel_id"),
            *("huawei_small_icon", "huawei_large_icon", "huawei_sound", "huawei_led_color", "huawei_accent_color"),
            *("huawei_visibility", "huawei_badge_class", "huawei_badge_add_num", "huawei_badge_set_num"),
            *("huawei_category", "huawei_bi_tag", "adm_big_picture", "adm_small_icon", "adm_large_icon", "adm_sound"),
            *("adm_group", "adm_group_message", "wp_wns_sound", "chrome_icon", "chrome_big_picture", "firefox_icon"),
        ),
        _ELSEWHERE,
    ),
}
_NO_MAIL = "is about e-mail, which is not sent here"
_NO_PLATFORM = "is for a platform that is not served here"
#: Fields that would change who gets what → why they are refused.
REFUSED = {
    "buttons": "buttons are not shown here; put the address into url",
    "web_buttons": "buttons are not shown here; put the address into url",
    "apns_alert": "texts are localised here; give contents and headings by language",
    "apns_push_type_override": "VoIP pushes are not sent here",
    "include_ios_tokens": "these are Apple's tokens, and pushes go through FCM; give include_aliases",
    **dict.fromkeys(
        (
            *("include_wp_wns_uris", "include_amazon_reg_ids", "include_chrome_reg_ids", "include_chrome_web_reg_ids"),
            *("include_huawei_tokens", "isHuawei", "isChromeWeb", "isFirefox", "isSafari", "isWP_WNS", "isAdm"),
            "isChrome",
        ),
        _NO_PLATFORM,
    ),
    **dict.fromkeys(
        (
            *("include_email_tokens", "email_to", "email_subject", "email_body", "email_from_name"),
            *("email_from_address", "email_reply_to_address", "email_preheader", "disable_email_click_tracking"),
            *("include_unsubscribed", "email_bcc", "email_sender_domain", "email_warm_up", "kind", "isEmail"),
        ),
        _NO_MAIL,
    ),
}
#: Fields that say nothing when they are this.
SAYS_NOTHING = {
    "mutable_content": (True,),
    "content_available": (False,),
    "include_unsubscribed": (False,),
    "disable_email_click_tracking": (False, True),
    **dict.fromkeys(
        (
            *("isIos", "isAndroid", "isHuawei", "isAnyWeb", "isChromeWeb", "isFirefox", "isSafari", "isWP_WNS"),
            *("isAdm", "isChrome", "isEmail"),
        ),
        (False,),
    ),
}
